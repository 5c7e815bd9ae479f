// One stream of events for the whole page. Views read `now` and listen for changes.

import { events } from "./http.js";

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;
const SILENCE_MS = 8_000; // the server sends something every second
const KEPT_POINTS = 450;
const KEPT_JOBS = 500;

/**
 * The latest state. `jobs` maps ids to {job, done, texts_per_s, eta_s}; `changed` has the ids in the last `jobs` event;
 * `trouble` is what the server reported, or why it refused the stream.
 */
export const now = { history: [], overview: null, jobs: new Map(), changed: [], connected: false, trouble: "" };

const listeners = new Set();

/** Calls `callback` with the name of each event; returns a function that stops it. */
export function listen(callback) {
  listeners.add(callback);
  return () => listeners.delete(callback);
}

function notifyListeners(name) {
  for (const callback of listeners) callback(name);
}

const HANDLERS = {
  history(points) {
    now.history = points;
    now.jobs.clear(); // they may have changed while the connection was lost
  },
  jobs(reports) {
    now.changed = reports.map((report) => report.job.id);
    for (const report of reports) {
      now.jobs.delete(report.job.id); // the most recent reports go to the end, and are dropped last
      now.jobs.set(report.job.id, report);
    }
    for (const id of [...now.jobs.keys()].slice(0, -KEPT_JOBS)) now.jobs.delete(id);
  },
  overview(overview) {
    now.overview = overview;
    const { point } = overview;
    if (point && point.at !== now.history.at(-1)?.at) now.history = [...now.history, point].slice(-KEPT_POINTS);
  },
};

function handle({ name, data }) {
  if (!name) return;
  if (Object.hasOwn(HANDLERS, name)) HANDLERS[name](data);
  now.trouble = name === "trouble" ? data.message : "";
  notifyListeners(name);
}

let endPause = () => {};

/** Follows the stream for ever. A lost connection is tried again, at once when `retryNow` is called. */
export async function follow() {
  let pause = FIRST_PAUSE_MS;
  for (;;) {
    await visible(); // browsers allow few connections to a server, over all their tabs
    if (await readUntilLost()) pause = FIRST_PAUSE_MS;
    now.connected = false;
    if (document.hidden) continue;
    notifyListeners("lost");
    await new Promise((resolve) => {
      endPause = resolve;
      setTimeout(resolve, pause);
    });
    pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
  }
}

/** Reads events until the connection is lost, silent, or the tab is hidden; returns whether there were any. */
async function readUntilLost() {
  const connection = new AbortController();
  const leave = () => document.hidden && connection.abort();
  document.addEventListener("visibilitychange", leave);
  let anyEvent = false;
  let lastEventMs = Date.now();
  const watchdog = setInterval(() => Date.now() - lastEventMs > SILENCE_MS && connection.abort(), 1000);
  try {
    const options = { signal: connection.signal, cache: "no-store", background: true };
    for await (const event of events("v1/events", options)) {
      lastEventMs = Date.now();
      anyEvent = true;
      now.connected = true;
      handle(event);
    }
  } catch (error) {
    now.trouble = error.status ? error.message : "";
  } finally {
    clearInterval(watchdog);
    document.removeEventListener("visibilitychange", leave);
  }
  return anyEvent;
}

/** Resolves when the tab is visible. */
export function visible() {
  return new Promise((resolve) => {
    const check = () => {
      if (document.hidden) return;
      document.removeEventListener("visibilitychange", check);
      resolve();
    };
    document.addEventListener("visibilitychange", check);
    check();
  });
}

/** Adds to a job that was just fetched what the stream knows: its rate, and its progress within chunks. */
export function withRate(job) {
  const report = now.jobs.get(job.id);
  if (report?.job.status !== job.status) return { job, done: job.counts.done, texts_per_s: 0, eta_s: null };
  const done = Math.max(job.counts.done, report.done);
  return { job, done, texts_per_s: report.texts_per_s, eta_s: report.eta_s };
}

/** Tries to connect at once instead of after the pause. */
export function retryNow() {
  endPause();
}

addEventListener("online", retryNow);
