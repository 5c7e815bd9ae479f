// One stream for the whole page: what goes on now. Views read `now` and listen for changes.

import { events } from "./http.js";

const LONGEST_PAUSE_MS = 10_000;
const SILENCE_MS = 8_000; // the server says something every second
const KEPT_POINTS = 450;
const KEPT_JOBS = 500;

/**
 * What was last heard. `jobs` maps ids to {job, done, texts_per_s, eta_s}; `news` has the ids of the last event.
 */
export const now = { history: [], overview: null, jobs: new Map(), news: [], connected: false, trouble: "" };

const listeners = new Set();

/** Calls back with the name of each event; returns how to stop that. */
export function listen(callback) {
  listeners.add(callback);
  return () => listeners.delete(callback);
}

function tell(name) {
  for (const callback of listeners) callback(name);
}

function take({ name, data }) {
  if (!name) return;
  if (name === "history") {
    now.history = data;
    now.jobs.clear(); // what was heard before the connection was lost may have changed since
  }
  if (name === "jobs") {
    now.news = data.map((told) => told.job.id);
    for (const told of data) {
      now.jobs.delete(told.job.id); // what was told last is forgotten last
      now.jobs.set(told.job.id, told);
    }
    for (const id of [...now.jobs.keys()].slice(0, -KEPT_JOBS)) now.jobs.delete(id);
  }
  if (name === "overview") {
    now.overview = data;
    const last = now.history.at(-1);
    if (data.point && data.point.at !== last?.at) now.history = [...now.history, data.point].slice(-KEPT_POINTS);
  }
  now.trouble = name === "trouble" ? data.message : "";
  tell(name);
}

let wake = () => {};

/** Listens for ever; a lost connection is told and tried again, sooner when the network is back or a key was given. */
export async function follow() {
  let pause = 500;
  for (;;) {
    await seen(); // browsers allow few connections to a server, over all their tabs
    const connection = new AbortController();
    const leave = () => document.hidden && connection.abort();
    document.addEventListener("visibilitychange", leave);
    let heard = Date.now();
    const watch = setInterval(() => Date.now() - heard > SILENCE_MS && connection.abort(), 1000);
    try {
      for await (const event of events("v1/events", { signal: connection.signal, cache: "no-store", byItself: true })) {
        heard = Date.now();
        pause = 500;
        now.connected = true;
        take(event);
      }
    } catch (error) {
      now.trouble = error.status ? error.message : "";
    } finally {
      clearInterval(watch);
      document.removeEventListener("visibilitychange", leave);
    }
    now.connected = false;
    if (document.hidden) continue;
    tell("lost");
    await new Promise((resolve) => {
      wake = resolve;
      setTimeout(resolve, pause);
    });
    pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
  }
}

/** Resolves when somebody looks at the tab. */
export function seen() {
  return new Promise((resolve) => {
    const look = () => {
      if (document.hidden) return;
      document.removeEventListener("visibilitychange", look);
      resolve();
    };
    document.addEventListener("visibilitychange", look);
    look();
  });
}

/** What the stream says of a job that was just fetched: its rate, and its progress within chunks. */
export function withRate(job) {
  const heard = now.jobs.get(job.id);
  if (heard?.job.status !== job.status) return { job, done: job.counts.done, texts_per_s: 0, eta_s: null };
  return { job, done: Math.max(job.counts.done, heard.done), texts_per_s: heard.texts_per_s, eta_s: heard.eta_s };
}

/** Do not wait for the next try. */
export function retryNow() {
  wake();
}

addEventListener("online", retryNow);
