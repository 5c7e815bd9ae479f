// Elements from plain values. Every text becomes a text node: nothing that a user sent is ever read as HTML.

/**
 * An element. Properties that start with "on" are listeners; the others are attributes, and false or null leaves one
 * out. Children are elements, texts, numbers or lists of these.
 */
export function h(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

/** The same for SVG. */
export function svg(tag, properties = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), properties, children);
}

function filled(element, properties, children) {
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

/** Puts these children in the place of those that were there. */
export function fill(element, ...children) {
  element.replaceChildren(...nodes(children));
  return element;
}

/** Changes a text only when it is another one: screen readers and selections stay undisturbed. */
export function say(element, text) {
  if (element.textContent !== String(text)) element.textContent = text;
}

/** Tells a screen reader what just happened. */
export function announce(text) {
  document.getElementById("told").textContent = text;
}

/** Tells everybody what just happened in a view that is no longer shown. */
export function notify(...children) {
  const notice = document.getElementById("notice");
  fill(notice, children, " ", h("button", { type: "button", class: "quiet", onclick: () => fill(notice) }, "Close"));
}

/** Does it, unless it is still being done. The button keeps the focus meanwhile, which a disabled one would lose. */
export async function once(button, work) {
  if (button.ariaDisabled === "true") return;
  button.ariaDisabled = "true";
  try {
    await work();
  } finally {
    button.ariaDisabled = null;
  }
}

/** A table whose cells know the name of their column, which a narrow screen shows beside them. */
export function table(caption, columns, rows) {
  return frame(caption, columns, h("tbody", { role: "rowgroup" }, rows.map((cells) => row(columns, cells))));
}

/** A table around a body of rows. Roles are spelled out: a narrow screen shows it as blocks, which would lose them. */
export function frame(caption, columns, body, kind = "") {
  return h("table", { role: "table", class: kind },
    h("caption", { class: "unseen" }, caption),
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, columns.map((column) => h("th", { scope: "col", role: "columnheader" }, column)))),
    body);
}

/** A row for the body of such a table. */
export function row(columns, cells, properties = {}) {
  return h("tr", { role: "row", ...properties }, cells.map((cell, i) => h("td", { role: "cell", "data-label": columns[i] }, cell)));
}

/** A labelled field: the label stands above, a hint below. */
export function field(label, control, hint = "") {
  return h("label", { class: "field" }, h("span", {}, label), control, hint && h("small", {}, hint));
}

/** A figure with its name. */
export function tile(name, value, note = "") {
  return h("div", { class: "tile" }, h("dt", {}, name), h("dd", {}, value, note && h("small", {}, note)));
}

/** A name and what it is, for a list of facts. */
export function fact(name, value) {
  return h("div", {}, h("dt", {}, name), h("dd", {}, value));
}

/** A word in a coloured frame; the word says it all, the colour says it twice. */
export function badge(word, kind = word) {
  return h("span", { class: `badge ${kind}` }, word);
}

/** An error where something was asked for. */
export function failure(error) {
  return h("p", { class: "failure", role: "alert" }, error.message);
}

/** Asks before something that cannot be undone; resolves to whether the answer was yes. */
export function confirmed(question, yes) {
  return new Promise((resolve) => {
    const dialog = h("dialog", { "aria-labelledby": "question" },
      h("p", { id: "question" }, question),
      h("div", { class: "buttons" },
        h("button", { type: "button", class: "quiet", onclick: () => dialog.close("") }, "Leave it"),
        h("button", { type: "button", class: "danger", onclick: () => dialog.close("yes") }, yes)));
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    addEventListener("hashchange", () => dialog.close(""), { once: true }); // it asked about what is no longer shown
    document.body.append(dialog);
    dialog.showModal();
  });
}
