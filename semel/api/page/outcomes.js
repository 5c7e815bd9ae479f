// Outcomes: how many texts were hits, computed, coalesced or failed.

import { h } from "./dom.js";

export const OUTCOMES = ["hit", "computed", "coalesced", "failed"];

/** A bar divided by outcome; its title has the numbers. */
export function outcomeBar(counts) {
  const { total } = counts;
  const summary = outcomeSummary(counts);
  const bar = h("span", { class: "split", role: "img", "aria-label": summary, title: summary });
  for (const kind of OUTCOMES) {
    const part = h("i", { class: kind });
    part.style.width = `${total ? (counts[kind] / total) * 100 : 0}%`;
    bar.append(part);
  }
  return bar;
}

/** The number of texts of each outcome. */
export function outcomeSummary(counts) {
  const present = OUTCOMES.filter((kind) => counts[kind]);
  const parts = present.map((kind) => `${counts[kind].toLocaleString("en")} ${kind}`);
  return parts.join(", ") || "outcomes appear when the first chunk is done";
}
