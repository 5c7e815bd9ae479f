// Syncs: the indexes that follow documents, their collections, and their last runs.

import { confirmed } from "./dialog.js";
import { badge, button, emptyNote, errorNote, fact, fill, h, liveRegion, runUnlessBusy, section } from "./dom.js";
import { ago, count, dateTime, plural, seconds, share } from "./format.js";
import { get, post } from "./http.js";
import { visible } from "./live.js";
import { table } from "./table.js";

export const title = "Syncs";

const LOOK_MS = 3_000;
const SHOWN_FAILURES = 20;
const COLLECTIONS = ["Collection", "Model", "State", "Documents", "Chunks", "In step"];
const RUNS = ["Started", "Outcome", "Plan", "Written", "Computed", "Failed", "Time"];

/** The colours of outcomes that no job has. */
const KINDS = { done: "completed", running: "in_progress", incomplete: "failed", refused: "failed" };

/** What a button of a collection does, by the state of the collection. */
const SWITCHES = {
  ready: { route: "cutover", label: "Cut over", question: (name) => `Let ${name} answer from now on?` },
  retired: { route: "rollback", label: "Roll back", question: (name) => `Let ${name} answer again?` },
};

export function show(root) {
  const view = new SyncsView();
  root.append(...view.elements);
  view.look();
  return () => view.leave();
}

class SyncsView {
  leaving = new AbortController();
  timer = null;
  drawn = ""; // what is shown now, as JSON: buttons keep the focus while nothing changes

  constructor() {
    this.list = h("div");
    this.error = h("div");
    this.result = liveRegion();
    this.elements = [this.error, this.result, this.list];
  }

  leave() {
    clearTimeout(this.timer);
    this.leaving.abort();
  }

  async look({ background = false } = {}) {
    const { signal } = this.leaving;
    clearTimeout(this.timer);
    if (background) await visible();
    if (signal.aborted) return;
    try {
      this.draw((await get("v1/syncs", { signal, background })).data);
      fill(this.error);
    } catch (caught) {
      if (caught.name === "AbortError") return;
      fill(this.error, errorNote(caught));
    }
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.look({ background: true }), LOOK_MS);
  }

  draw(syncs) {
    const state = JSON.stringify(syncs);
    if (state === this.drawn) return;
    this.drawn = state;
    const act = (sync, collection) => this.switchTo(sync, collection);
    fill(this.list, syncs.length ? syncs.map((sync) => syncSection(sync, act)) : nothing());
  }

  async switchTo(sync, collection) {
    const { route, label, question } = SWITCHES[collection.state];
    if (!(await confirmed(question(collection.name), label))) return;
    try {
      const query = new URLSearchParams({ collection: collection.name });
      await post(`v1/syncs/${encodeURIComponent(sync.name)}/${route}?${query}`);
      fill(this.result, h("p", { class: "fine" }, `${collection.name} answers now.`));
    } catch (caught) {
      fill(this.result, errorNote(caught));
    }
    await this.look();
  }
}

function nothing() {
  return emptyNote(
    "No sync has run on this database. ",
    h("code", {}, "semel sync run NAME"),
    " runs one of semel.toml.",
  );
}

function syncSection(sync, act) {
  const facts = h(
    "dl",
    { class: "facts" },
    fact("Source", h("code", {}, sync.source)),
    fact("Sink", h("code", {}, sync.sink)),
  );
  return section(
    [sync.name, " ", sync.running && badge("running", "in_progress")],
    facts,
    collectionsTable(sync, act),
    sync.runs.length ? [runsTable(sync), lastRun(sync.runs[0])] : null,
  );
}

function collectionsTable(sync, act) {
  const rows = sync.collections.map((collection) => [
    h("code", { title: `fingerprint ${collection.fingerprint}` }, collection.name),
    collection.model,
    [
      badge(collection.state, collection.state === "serving" ? "healthy" : "quiet"),
      switchButton(sync, collection, act),
    ],
    count(collection.documents),
    count(collection.chunks),
    ago(collection.filled_at),
  ]);
  return table(`Collections of ${sync.name}`, COLLECTIONS, rows);
}

function switchButton(sync, collection, act) {
  const offered = SWITCHES[collection.state];
  if (!offered || sync.running) return null;
  const trigger = button(offered.label, { class: "quiet", "aria-label": `${offered.label} to ${collection.name}` });
  trigger.addEventListener("click", () => runUnlessBusy(trigger, () => act(sync, collection)));
  return [" ", trigger];
}

function runsTable(sync) {
  const rows = sync.runs.map(({ started_at: startedAt, outcome, report }) => [
    dateTime(startedAt),
    badge(outcome, KINDS[outcome] ?? outcome),
    planText(report.plan),
    outcome === "running" ? share(report.done, report.plan.chunks) : count(report.written),
    count(report.computed),
    count(report.failed),
    outcome === "running" ? "–" : seconds(report.seconds),
  ]);
  return table(`Runs of ${sync.name}, newest first`, RUNS, rows);
}

function planText(plan) {
  const documents = `+${count(plan.added)} ~${count(plan.changed)} −${count(plan.deleted)}`;
  return [documents, h("small", {}, `${plural(plan.chunks, "chunk")}, ${count(plan.to_compute)} to compute`)];
}

/** What the last run says in words: notes of its plan, documents that failed, and why it stopped. */
function lastRun({ report }) {
  const failures = Object.entries(report.failures);
  const more = report.failed - Math.min(failures.length, SHOWN_FAILURES);
  return [
    report.error && errorNote({ message: `The last run stopped: ${report.error}` }),
    report.plan.notes.map((note) => h("p", { class: "why" }, note)),
    failures.length > 0 && [
      h("p", {}, `${plural(report.failed, "document")} not in step; what the index has of them stays:`),
      h(
        "ul",
        {},
        failures.slice(0, SHOWN_FAILURES).map(([document, why]) => h("li", {}, h("code", {}, document), `: ${why}`)),
        more > 0 && h("li", {}, `and ${count(more)} more`),
      ),
    ],
  ];
}
