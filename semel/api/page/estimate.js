// What a job would cost: texts, hits, time, and the first rows as a check.

import { h, tile } from "./dom.js";
import { bytes, count, seconds, share } from "./format.js";
import { table } from "./table.js";

/** Shows an estimate of POST /v1/jobs/estimate. */
export function estimateReport(estimate) {
  const columns = Object.keys(estimate.preview[0] ?? { text: "" });
  const rows = estimate.preview.map((row) => columns.map((column) => h("span", { class: "quoted" }, row[column])));
  const badRows = estimate.bad_rows.map((row) => h("li", {}, row.message));
  return [
    h("dl", { class: "tiles" }, figures(estimate)),
    h("p", { class: "why" }, `On ${estimate.why}.`),
    badRows.length ? h("ul", { class: "bad" }, badRows) : null,
    h("h2", {}, "First rows"),
    table("First rows", columns, rows),
  ];
}

function figures(estimate) {
  return [
    tile("Texts", count(estimate.texts), `${count(estimate.distinct)} distinct`),
    tile("Already cached", count(estimate.cached), share(estimate.cached, estimate.texts)),
    tile("To compute", count(estimate.to_compute), duration(estimate)),
    tile("Tokens", `about ${count(estimate.tokens)}`, cost(estimate)),
    estimate.truncated
      ? tile("Longer than the model reads", `about ${count(estimate.truncated)}`, unread(estimate))
      : null,
    estimate.failed ? tile("Cannot be embedded", count(estimate.failed), "each keeps its row in the results") : null,
  ];
}

function unread({ unread_share }) {
  return `${Math.round(100 * unread_share)} % of all tokens are cut off`;
}

function cost({ cost: price, disk_bytes }) {
  const disk = disk_bytes === null ? "size on disk unknown" : `${bytes(disk_bytes)} on disk`;
  return price === null ? disk : `${disk}, costs ${price.toFixed(2)}`;
}

function duration({ to_compute, cached, compute_s, queue_s, device }) {
  if (!to_compute) return cached ? "finishes at once" : "no text can be embedded";
  if (compute_s === null) return `the speed of this model on ${device} is not measured yet`;
  return `about ${seconds(compute_s)}${queue_s >= 1 ? `, after ${seconds(queue_s)} of other work` : ""}`;
}
