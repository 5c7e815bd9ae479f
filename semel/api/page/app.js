// The frame around the views: which one is shown, and the state of the connection.

import * as cache from "./cache.js";
import { fill, h, notify, setText } from "./dom.js";
import { download, hasKey } from "./http.js";
import * as job from "./job.js";
import * as jobs from "./jobs.js";
import { watchKey } from "./key.js";
import { follow, listen, now } from "./live.js";
import * as models from "./models.js";
import * as nowView from "./now.js";
import * as submit from "./submit.js";
import * as syncs from "./syncs.js";
import * as tryView from "./try.js";

const VIEWS = { now: nowView, jobs, submit, try: tryView, cache, models, syncs };
const main = document.getElementById("main");
let leaveView = () => {};

/** Shows the view that the part of the URL after # names. */
function showView({ moveFocus = true } = {}) {
  const [path, query] = location.hash.slice(1).split("?");
  const [requested, id] = path.split("/");
  const name = Object.hasOwn(VIEWS, requested) ? requested : "now";
  const view = name === "jobs" && id ? job : VIEWS[name];
  leaveView();
  const heading = h("h1", { tabindex: -1 }, view.title);
  const root = h("div", { class: "view" });
  fill(main, heading, root);
  document.title = `${view.title} – semel`;
  markCurrentLink(name);
  leaveView = view.show(root, id, new URLSearchParams(query));
  if (moveFocus) {
    heading.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
}

function markCurrentLink(name) {
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function showConnection() {
  const connection = document.getElementById("connection");
  setText(connection, now.connected ? "live" : "retrying");
  connection.className = `badge ${now.connected ? "healthy" : "failed"}`;
  document.body.classList.toggle("stale", !now.connected);
  const banner = document.getElementById("banner");
  const trouble = currentTrouble();
  banner.classList.toggle("none", !trouble);
  setText(banner, trouble);
}

function currentTrouble() {
  if (!now.connected && !now.trouble) return "Connection lost, retrying.";
  if (now.trouble) return now.connected ? now.trouble : `The server refused the request: ${now.trouble}`;
  const failing = Object.entries(now.overview?.ready.parts ?? {}).filter(([, state]) => state !== "ok");
  return failing.map(([name, state]) => `${name}: ${state}`).join(" · ");
}

watchKey(() => showView());
document.getElementById("metrics").addEventListener("click", (event) => {
  if (!hasKey()) return;
  event.preventDefault(); // a link cannot carry the key
  download("metrics", "semel-metrics.txt").catch((error) => notify(error.message));
});
addEventListener("hashchange", () => showView());
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the part after # names the view
  main.focus();
});
listen(showConnection);
showView({ moveFocus: false });
follow();
