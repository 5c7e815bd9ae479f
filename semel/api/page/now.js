// Now: pools, queues, rates.

import { areas, OUTCOMES } from "./chart.js";
import { badge, fact, fill, h, tile } from "./dom.js";
import { bytes, count, milliseconds, percent, rate, seconds, several, shareOfHits, texts } from "./format.js";
import { listen, now } from "./live.js";

export const title = "Now";

const FULL_BAR_S = 60; // a queue with a minute of work fills its bar, unless another one has more

export function show(root) {
  const tiles = h("dl", { class: "tiles" });
  const chart = h("div");
  const hits = h("div");
  const queues = h("div");
  const pools = h("div", { class: "cards" });
  root.append(tiles,
    h("section", {}, h("h2", {}, "Texts a second"), chart),
    h("section", {}, h("h2", {}, "Hit rate"), hits),
    h("section", {}, h("h2", {}, "Queues"), queues),
    h("section", {}, h("h2", {}, "Device pools"), pools));
  const draw = () => {
    if (!now.overview) return;
    fill(tiles, figures());
    fill(chart, throughput());
    fill(hits, hitRate());
    fill(queues, queueBars());
    drawPools(pools);
  };
  draw();
  return listen((name) => name === "overview" && draw());
}

function figures() {
  const { cache, jobs, point } = now.overview;
  const open = (jobs.in_progress ?? 0) + (jobs.validating ?? 0) + (jobs.cancelling ?? 0);
  return [
    tile("Texts a second", rate(point ? total(point) : 0)),
    tile("Hit rate", shareOfHits(cache), `of ${texts(cache.lookups)} looked up so far`),
    tile("Saved device time", seconds(cache.saved_s), "what all hits would have cost"),
    tile("Open jobs", count(open), `${count(jobs.completed ?? 0)} completed are kept`),
  ];
}

/** Texts a second, whatever became of them. */
function total(point) {
  return OUTCOMES.reduce((sum, kind) => sum + point[kind], 0);
}

function throughput() {
  const layers = OUTCOMES.map((kind) => ({ name: kind, kind, values: now.history.map((point) => point[kind]) }));
  return areas({
    label: "Texts a second by outcome over the last minutes",
    layers, times: now.history.map((point) => point.at), format: rate,
  });
}

/** Of the texts of each moment; nothing is drawn where there were none. */
function hitRate() {
  const layers = [{ name: "hits", kind: "hit", values: now.history.map((point) => (total(point) ? point.hit / total(point) : null)) }];
  return areas({ label: "Share of texts that were hits over the last minutes", layers, times: now.history.map((point) => point.at), format: percent });
}

function queueBars() {
  const { queues } = now.overview;
  if (!queues.length) return h("p", { class: "empty" }, "No worker is alive and no job waits. Start one: ", h("code", {}, "semel worker --device cpu"));
  const full = Math.max(FULL_BAR_S, ...queues.map((queue) => queue.work_s));
  return h("ul", { class: "bars" }, queues.map((queue) => {
    const bar = h("span", { class: "bar" }, h("i", { class: queue.oldest_s > 60 || !queue.workers ? "slow" : "" }));
    const share = queue.work_s === null ? 1 : Math.min(1, queue.work_s / full);
    bar.firstChild.style.width = `${share * 100}%`;
    return h("li", {},
      h("span", { class: "name" }, `${queue.lane} on ${queue.device}`),
      bar,
      h("span", { class: "value" }, queue.work_s === null ? "no rate known" : `${seconds(queue.work_s)} of work`),
      h("small", {}, [
        `${texts(queue.texts)} to do`, `${several(queue.messages, "message")} in the queue`,
        queue.oldest_s >= 1 ? `oldest waits ${seconds(queue.oldest_s)}` : null,
        queue.workers ? null : "no live worker",
      ].filter(Boolean).join(" · ")));
  }));
}

/** A card is drawn again only when it changed, and keeps its list of workers open, and the focus on it. */
function drawPools(root) {
  const { pools } = now.overview;
  const before = new Map([...root.querySelectorAll("article")].map((card) => [card.dataset.device, card]));
  if (!pools.length) return fill(root, h("p", { class: "empty" }, "No worker is alive."));
  const cards = pools.map((pool) => {
    const state = JSON.stringify(pool);
    const old = before.get(pool.device);
    if (old?.dataset.state === state) return old;
    const made = card(pool, Boolean(old?.querySelector("details").open));
    made.dataset.state = state;
    return made;
  });
  const focused = root.contains(document.activeElement) && document.activeElement.closest("article")?.dataset.device;
  if (cards.every((made) => made.isConnected) && cards.length === root.children.length) return;
  fill(root, cards);
  if (focused) root.querySelector(`article[data-device="${CSS.escape(focused)}"] summary`)?.focus();
}

function card(pool, open) {
  const latency = pool.latency_ms;
  return h("article", { class: "card", "data-device": pool.device },
    h("h3", {}, pool.device, " ", badge(pool.status)),
    h("p", { class: "why" }, pool.why),
    h("dl", { class: "facts" },
      fact("models", pool.models.join(", ") || "none"),
      fact("rate while busy", pool.texts_per_s ? `${rate(pool.texts_per_s)} texts/s` : "not measured yet"),
      fact("latency p50, p95", latency.p50 === null ? "–" : `${milliseconds(latency.p50)}, ${milliseconds(latency.p95)}`),
      fact("memory", bytes(pool.memory_usage_bytes)),
      pool.gpu_utilization === null ? null : fact("GPU use", percent(pool.gpu_utilization)),
      fact("padding", pool.batch_efficiency === null ? "–" : percent(1 - pool.batch_efficiency)),
      fact("errors", pool.error_rate === null ? "–" : percent(pool.error_rate))),
    h("details", { open },
      h("summary", {}, several(pool.workers.length, "worker")),
      h("ul", {}, pool.workers.map((worker) => h("li", {},
        h("b", {}, worker.device), ` on ${worker.host}, process ${worker.pid} `, badge(worker.status),
        h("small", {}, worker.about))))));
}
