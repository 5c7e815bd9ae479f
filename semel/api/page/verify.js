// Verify: checks every vector of the cache, and deletes the damaged ones on demand.

import { confirmed } from "./dialog.js";
import { busyNote, button, errorNote, fill, h, liveRegion, runUnlessBusy, section } from "./dom.js";
import { count, plural } from "./format.js";
import { events } from "./http.js";

/**
 * @param onChange is called when vectors were read, and perhaps deleted.
 * @param signal aborts what is under way when the view is left.
 */
export function verifySection(onChange, signal) {
  const result = liveRegion();
  const check = button("Verify", { onclick: () => runUnlessBusy(check, () => run(false)) });
  const repair = button("Delete damaged vectors", { class: "danger", hidden: true, onclick: askAndRepair });
  async function askAndRepair() {
    const question = "Delete the damaged vectors? They are computed again when a job needs them.";
    if (await confirmed(question, "Delete damaged vectors")) runUnlessBusy(check, () => run(true));
  }
  async function run(repairing) {
    if (repairing) check.focus(); // the other button is hidden
    repair.hidden = true;
    try {
      const summary = await verified(result, { repairing, signal });
      fill(result, verdict(summary));
      repair.hidden = repairing || !summary.damaged;
      onChange();
    } catch (error) {
      if (error.name !== "AbortError") fill(result, errorNote(error));
    }
  }
  const about = h("p", { class: "why" }, "Reads every vector and checks its size, checksum and values.");
  return section("Verify", about, h("div", { class: "buttons" }, check, repair), result);
}

/** Reads the whole cache and shows the progress in `root`; returns the server's summary. */
async function verified(root, { repairing, signal }) {
  const bar = h("progress", { max: 1, value: 0, "aria-label": "Verifying" });
  const progress = h("span");
  fill(root, busyNote(bar, " ", progress));
  let summary = null;
  for await (const { name, data } of events(`v1/cache/verify?repair=${repairing}`, { method: "POST", signal })) {
    if (name === "end") summary = data;
    if (name !== "progress") continue;
    bar.value = data.total ? data.entries / data.total : 0;
    progress.textContent = `${count(data.entries)} of ${count(data.total)} read, ${count(data.damaged)} damaged`;
  }
  if (!summary) throw new Error("The server stopped before it had read every vector. Verify again.");
  return summary;
}

function verdict({ entries, damaged, keys, repaired }) {
  const deleted = repaired && damaged ? " and deleted" : "";
  const damagedKeys = keys.map((key) => h("li", {}, h("code", { class: "long" }, key)));
  return [
    h(
      "p",
      { class: damaged ? "failure" : "fine" },
      `${plural(entries, "vector")} read, ${count(damaged)} damaged${deleted}.`,
    ),
    damagedKeys.length ? h("ul", {}, damagedKeys) : null,
  ];
}
