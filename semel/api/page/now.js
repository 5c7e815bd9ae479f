// Now: rates, hit rate, queues and device pools.

import { areas } from "./chart.js";
import { emptyNote, fill, h, section, tile } from "./dom.js";
import { count, hitRate, percent, plural, rate, seconds, texts } from "./format.js";
import { listen, now } from "./live.js";
import { OUTCOMES } from "./outcomes.js";
import { drawPools } from "./pools.js";

export const title = "Now";

const FULL_BAR_S = 60; // a queue with a minute of work fills its bar, unless another queue has more
const SLOW_S = 60; // a message that waits longer colours the bar of its queue

export function show(root) {
  const tiles = h("dl", { class: "tiles" });
  const [throughput, hits, queues] = [h("div"), h("div"), h("div")];
  const pools = h("div", { class: "cards" });
  root.append(
    tiles,
    section("Texts per second", throughput),
    section("Hit rate", hits),
    section("Queues", queues),
    section("Device pools", pools),
  );
  const draw = () => {
    if (!now.overview) return;
    fill(tiles, figures(now.overview));
    fill(throughput, throughputChart());
    fill(hits, hitRateChart());
    fill(queues, queueBars(now.overview.queues));
    drawPools(pools, now.overview.pools);
  };
  draw();
  return listen((name) => name === "overview" && draw());
}

function figures({ cache, jobs, point }) {
  const open = (jobs.in_progress ?? 0) + (jobs.validating ?? 0) + (jobs.cancelling ?? 0);
  return [
    tile("Texts per second", rate(point ? total(point) : 0)),
    tile("Hit rate", hitRate(cache), `of ${texts(cache.lookups)} looked up so far`),
    tile("Device time saved", seconds(cache.saved_s), "computing all hits would have taken this long"),
    tile("Open jobs", count(open), `${plural(jobs.completed ?? 0, "completed job")} kept`),
  ];
}

/** Texts per second at a point, over all outcomes. */
function total(point) {
  return OUTCOMES.reduce((sum, kind) => sum + point[kind], 0);
}

function throughputChart() {
  const layers = OUTCOMES.map((kind) => ({ name: kind, kind, values: now.history.map((point) => point[kind]) }));
  const times = now.history.map((point) => point.at);
  return areas({ label: "Texts per second by outcome over the last minutes", layers, times, format: rate });
}

/** The share of hits at each point, with a gap where there were no texts. */
function hitRateChart() {
  const values = now.history.map((point) => (total(point) ? point.hit / total(point) : null));
  const times = now.history.map((point) => point.at);
  const layers = [{ name: "hits", kind: "hit", values }];
  return areas({ label: "Share of texts that were hits over the last minutes", layers, times, format: percent });
}

function queueBars(queues) {
  if (!queues.length) {
    const start = h("code", {}, "semel worker --device cpu");
    return emptyNote("No worker is alive and no job is waiting. Start a worker: ", start);
  }
  const fullS = Math.max(FULL_BAR_S, ...queues.map((queue) => queue.work_s));
  const bars = queues.map((queue) => queueBar(queue, fullS));
  return h("ul", { class: "bars" }, bars);
}

function queueBar(queue, fullS) {
  const filled = h("i", { class: queue.oldest_s > SLOW_S || !queue.workers ? "slow" : "" });
  const share = queue.work_s === null ? 1 : Math.min(1, queue.work_s / fullS);
  filled.style.width = `${share * 100}%`;
  const details = [`${texts(queue.texts)} to do`, `${plural(queue.messages, "message")} in the queue`];
  if (queue.oldest_s >= 1) details.push(`the oldest has waited ${seconds(queue.oldest_s)}`);
  if (!queue.workers) details.push("no live worker");
  return h(
    "li",
    {},
    h("span", { class: "name" }, `${queue.lane} on ${queue.device}`),
    h("span", { class: "bar" }, filled),
    h("span", { class: "value" }, queue.work_s === null ? "rate unknown" : `${seconds(queue.work_s)} of work`),
    h("small", {}, details.join(" · ")),
  );
}
