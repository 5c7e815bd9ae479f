// What a job would cost: texts, hits, time, and the first rows as a check.

import { h, tile } from "./dom.js";
import { count, seconds, share } from "./format.js";
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
    estimate.failed ? tile("Cannot be embedded", count(estimate.failed), "each keeps its row in the results") : null,
  ];
}

function duration({ to_compute, cached, compute_s, queue_s, device }) {
  if (!to_compute) return cached ? "finishes at once" : "no text can be embedded";
  if (compute_s === null) return `the speed of ${device} is not measured yet`;
  return `about ${seconds(compute_s)}${queue_s >= 1 ? `, after ${seconds(queue_s)} of other work` : ""}`;
}
