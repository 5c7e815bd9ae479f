// Elements from plain values. Every text becomes a text node, so nothing that a user sent is ever read as HTML.

/**
 * An element. Properties that start with "on" are listeners. The others are attributes; false, null and undefined leave
 * one out. Children are elements, texts, numbers or lists of these.
 */
export function h(tag, properties = {}, ...children) {
  return furnish(document.createElement(tag), properties, children);
}

/** An SVG element, with the same properties and children as `h`. */
export function svg(tag, properties = {}, ...children) {
  return furnish(document.createElementNS("http://www.w3.org/2000/svg", tag), properties, children);
}

function furnish(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...nodes(children));
  return element;
}

function nodes(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

/** Replaces the children of an element. */
export function fill(element, ...children) {
  element.replaceChildren(...nodes(children));
  return element;
}

/** Changes a text only when it differs, so that screen readers and selections are not disturbed. */
export function setText(element, text) {
  if (element.textContent !== String(text)) element.textContent = text;
}

/** Announces to screen readers what just happened. */
export function announce(text) {
  document.getElementById("told").textContent = text;
}

/** Shows a notice about something that belongs to no view, or to one that is no longer shown. */
export function notify(...children) {
  const notice = document.getElementById("notice");
  fill(notice, children, " ", button("Close", { class: "quiet", onclick: () => fill(notice) }));
}

/** Runs `work` unless it is still running. Meanwhile the button keeps the focus, which a disabled one would lose. */
export async function runUnlessBusy(trigger, work) {
  if (trigger.ariaDisabled === "true") return;
  trigger.ariaDisabled = "true";
  try {
    await work();
  } finally {
    trigger.ariaDisabled = null;
  }
}

/** A button that submits no form. */
export function button(label, properties = {}) {
  return h("button", { type: "button", ...properties }, label);
}

/** A section under a heading. */
export function section(heading, ...children) {
  return h("section", {}, h("h2", {}, heading), children);
}

/** A place whose changes screen readers announce. */
export function liveRegion() {
  return h("div", { "aria-live": "polite" });
}

/** A labelled field: the label above the control, a hint below it. */
export function field(label, control, hint = "") {
  return h("label", { class: "field" }, h("span", {}, label), control, hint && h("small", {}, hint));
}

/** A figure under its name. */
export function tile(name, value, note = "") {
  return h("div", { class: "tile" }, h("dt", {}, name), h("dd", {}, value, note && h("small", {}, note)));
}

/** A name and its value, for a list of facts. */
export function fact(name, value) {
  return h("div", {}, h("dt", {}, name), h("dd", {}, value));
}

/** A word in a coloured frame. The colour only repeats what the word means. */
export function badge(word, kind = word) {
  return h("span", { class: `badge ${kind}` }, word);
}

/** A remark in place of a list that has no entries. */
export function emptyNote(...children) {
  return h("p", { class: "empty" }, children);
}

/** A remark that something is under way. */
export function busyNote(...children) {
  return h("p", { class: "busy" }, children);
}

/** An error, shown where the user asked for something. */
export function errorNote({ message }) {
  return h("p", { class: "failure", role: "alert" }, message);
}
