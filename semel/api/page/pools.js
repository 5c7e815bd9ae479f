// Device pools: a card for each, with its workers.

import { badge, emptyNote, fact, fill, h } from "./dom.js";
import { bytes, milliseconds, percent, plural, rate } from "./format.js";

/** Draws a card again only when its pool changed; its list of workers stays open, and keeps the focus. */
export function drawPools(root, pools) {
  if (!pools.length) return fill(root, emptyNote("No worker is alive."));
  const before = new Map([...root.querySelectorAll("article")].map((card) => [card.dataset.device, card]));
  const cards = pools.map((pool) => currentCard(pool, before.get(pool.device)));
  if (cards.every((card) => card.isConnected) && cards.length === root.children.length) return;
  const focused = root.contains(document.activeElement) && document.activeElement.closest("article")?.dataset.device;
  fill(root, cards);
  if (focused) root.querySelector(`article[data-device="${CSS.escape(focused)}"] summary`)?.focus();
}

function currentCard(pool, before) {
  const state = JSON.stringify(pool);
  if (before?.dataset.state === state) return before;
  const card = poolCard(pool, Boolean(before?.querySelector("details").open));
  card.dataset.state = state;
  return card;
}

function poolCard(pool, open) {
  return h(
    "article",
    { class: "card", "data-device": pool.device },
    h("h3", {}, pool.device, " ", badge(pool.status)),
    h("p", { class: "why" }, pool.why),
    h("dl", { class: "facts" }, facts(pool)),
    h(
      "details",
      { open },
      h("summary", {}, plural(pool.workers.length, "worker")),
      h("ul", {}, pool.workers.map(workerEntry)),
    ),
  );
}

function facts(pool) {
  const { p50, p95 } = pool.latency_ms;
  return [
    fact("models", pool.models.join(", ") || "none"),
    fact("rate while busy", pool.texts_per_s ? `${rate(pool.texts_per_s)} texts/s` : "not measured yet"),
    fact("latency p50, p95", p50 === null ? "–" : `${milliseconds(p50)}, ${milliseconds(p95)}`),
    fact("memory", bytes(pool.memory_usage_bytes)),
    pool.gpu_utilization === null ? null : fact("GPU use", percent(pool.gpu_utilization)),
    fact("padding", pool.batch_efficiency === null ? "–" : percent(1 - pool.batch_efficiency)),
    fact("errors", pool.error_rate === null ? "–" : percent(pool.error_rate)),
  ];
}

function workerEntry({ device, host, pid, status, about }) {
  const place = ` on ${host}, process ${pid} `;
  return h("li", {}, h("b", {}, device), place, badge(status), h("small", {}, about));
}
