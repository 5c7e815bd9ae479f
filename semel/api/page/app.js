// The frame around the views: which one is shown, whether the server is heard, the API key.

import * as cache from "./cache.js";
import { field, fill, h, notify, say } from "./dom.js";
import { download, forgetKey, hasKey, keepKey } from "./http.js";
import * as job from "./job.js";
import * as jobs from "./jobs.js";
import { follow, listen, now, retryNow } from "./live.js";
import * as models from "./models.js";
import * as nowView from "./now.js";
import * as submit from "./submit.js";
import * as tryView from "./try.js";

const VIEWS = { now: nowView, jobs, submit, try: tryView, cache, models };
const main = document.getElementById("main");
let leave = () => {};

function route({ byHand = true } = {}) {
  const [path, query] = location.hash.slice(1).split("?");
  const [asked, id] = path.split("/");
  const name = Object.hasOwn(VIEWS, asked) ? asked : "now";
  const view = name === "jobs" && id ? job : VIEWS[name];
  leave();
  const heading = h("h1", { tabindex: -1 }, view.title);
  const root = h("div", { class: "view" });
  fill(main, heading, root);
  document.title = `${view.title} – semel`;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  leave = view.show(root, id, new URLSearchParams(query));
  if (byHand) {
    heading.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
}

function tellConnection() {
  const connection = document.getElementById("connection");
  const banner = document.getElementById("banner");
  const parts = Object.entries(now.overview?.ready.parts ?? {}).filter(([, state]) => state !== "ok");
  say(connection, now.connected ? "live" : "retrying");
  connection.className = `badge ${now.connected ? "healthy" : "failed"}`;
  document.body.classList.toggle("stale", !now.connected);
  let trouble = "";
  if (!now.connected) trouble = now.trouble ? `The server refuses: ${now.trouble}` : "Connection lost, retrying.";
  else if (now.trouble) trouble = now.trouble;
  else if (parts.length) trouble = parts.map(([name, state]) => `${name}: ${state}`).join(" · ");
  banner.classList.toggle("none", !trouble);
  say(banner, trouble);
}

let asking = false;
let refused = false;

function offerKey() {
  const button = document.getElementById("key");
  button.hidden = !hasKey() && !refused;
  say(button, hasKey() ? "Forget key" : "Enter key");
}

/** One question at a time; who closes it is asked again when he does something, and not by the stream. */
function askForKey({ detail }) {
  if (asking || (detail.byItself && refused)) return;
  asking = true;
  const visible = { pattern: "\\s*[!-~]+\\s*", title: "The key has no spaces, and letters of ASCII only." }; // fetch sends no other
  const input = h("input", { type: "password", autocomplete: "off", required: true, ...visible });
  const dialog = h("dialog", { "aria-labelledby": "key-title" },
    h("form", { onsubmit: (event) => { event.preventDefault(); dialog.close(input.value.trim()); } },
      h("h2", { id: "key-title" }, "This server needs an API key"),
      hasKey() ? h("p", { class: "failure", role: "alert" }, detail.message) : null,
      field("API key", input, "It stays in this tab. Make one with: semel key"),
      h("div", { class: "buttons" }, h("button", { type: "submit" }, "Use it"))));
  dialog.addEventListener("close", () => {
    dialog.remove();
    asking = false;
    refused = !dialog.returnValue;
    if (!refused) keepKey(dialog.returnValue);
    offerKey();
    if (refused) return;
    retryNow();
    route();
  });
  document.body.append(dialog);
  dialog.showModal();
}

document.addEventListener("semel:key", askForKey);
offerKey();
document.getElementById("key").addEventListener("click", () => {
  forgetKey();
  location.reload();
});
document.getElementById("metrics").addEventListener("click", (event) => {
  if (!hasKey()) return;
  event.preventDefault(); // a link cannot carry the key
  download("metrics", "semel-metrics.txt").catch((error) => notify(error.message));
});
addEventListener("hashchange", () => route());
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // what stands behind the # is the view
  main.focus();
});
listen(tellConnection);
route({ byHand: false });
follow();
