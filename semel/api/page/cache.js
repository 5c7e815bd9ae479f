// Cache: what it holds, how it grew, whether it is sound, and what to delete.

import { areas } from "./chart.js";
import { confirmed, failure, field, fill, h, once, table, tile } from "./dom.js";
import { ago, bytes, count, seconds, several, shareOfHits } from "./format.js";
import { events, get, post } from "./http.js";
import { seen } from "./live.js";

export const title = "Cache";

const LOOK_MS = 10_000;
const LAYERS = 4; // spaces with a colour of their own; the others share one

export function show(root) {
  const parts = { tiles: h("dl", { class: "tiles" }), growth: h("div"), spaces: h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Vector spaces" }), trouble: h("div") };
  const choice = h("select");
  const leaving = new AbortController();
  let timer = null;
  async function look(byItself = false) {
    clearTimeout(timer);
    if (byItself) await seen();
    if (leaving.signal.aborted) return;
    try {
      draw(parts, choice, await get("v1/cache", { signal: leaving.signal, byItself }));
      fill(parts.trouble);
    } catch (error) {
      if (error.name === "AbortError") return;
      fill(parts.trouble, failure(error));
    }
    clearTimeout(timer);
    timer = setTimeout(look, LOOK_MS, true);
  }
  root.append(parts.trouble, parts.tiles,
    h("section", {}, h("h2", {}, "Growth"), parts.growth),
    h("section", {}, h("h2", {}, "Spaces"), parts.spaces),
    verifying(look, leaving.signal), pruning(choice, look));
  look();
  return () => {
    clearTimeout(timer);
    leaving.abort();
  };
}

function draw(parts, choice, { totals, spaces, growth, span_s }) {
  const sum = (name) => spaces.reduce((total, space) => total + space[name], 0);
  fill(parts.tiles,
    tile("Vectors", count(sum("entries"))), tile("Size", bytes(sum("bytes")), "without indexes"),
    tile("Hit rate", shareOfHits(totals)), tile("Saved device time", seconds(totals.saved_s)));
  fill(parts.growth, grown(spaces, growth, span_s));
  fill(parts.spaces, spaces.length ? listed(spaces) : h("p", { class: "empty" }, "The cache is empty: the first job fills it."));
  offer(choice, spaces);
}

/** What was chosen stays chosen, even when it is gone: to delete from every space instead would be another wish. */
function offer(choice, spaces) {
  const there = ["", ...spaces.map((space) => space.fingerprint)];
  const offered = [...choice.options].map((option) => option.value);
  const chosen = choice.value;
  if (there.includes(chosen) && there.join() === offered.join()) return;
  const gone = chosen && !there.includes(chosen) ? h("option", { value: chosen }, `gone (${chosen.slice(0, 8)})`) : null;
  fill(choice, h("option", { value: "" }, "every space"), spaces.map((space) => h("option", { value: space.fingerprint }, named(space))), gone);
  choice.value = chosen;
}

function named(space) {
  return `${space.prompt_name ? `${space.model}, ${space.prompt_name}` : space.model} (${space.fingerprint.slice(0, 8)})`;
}

function listed(spaces) {
  return table("Vector spaces", ["Model", "Revision", "Precision", "Dimensions", "Vectors", "Size", "Last use", "Hit rate"],
    spaces.map((space) => [
      [space.model, space.prompt_name && h("small", {}, `prompt ${space.prompt_name}`)],
      h("code", { title: `weights ${space.weights}, fingerprint ${space.fingerprint}` }, space.weights.slice(0, 12)), space.precision, count(space.dim), count(space.entries), bytes(space.bytes),
      ago(space.used_at), shareOfHits(space),
    ]));
}

/** Vectors that are there now, by when they came: one layer for each of the large spaces. */
function grown(spaces, growth, spanS) {
  if (!growth.length) return h("p", { class: "empty" }, "No vectors yet.");
  const first = growth[0].at;
  const steps = Math.max(1, Math.round((growth.at(-1).at - first) / spanS)) + 1;
  const times = Array.from({ length: steps + 1 }, (_, i) => first + i * spanS);
  const layers = spaces.slice(0, LAYERS).map((space, i) => ({ name: named(space), kind: `layer${i}`, of: (part) => part.fingerprint === space.fingerprint }));
  if (spaces.length > LAYERS) {
    const own = new Set(spaces.slice(0, LAYERS).map((space) => space.fingerprint));
    layers.push({ name: "others", kind: "others", of: (part) => !own.has(part.fingerprint) });
  }
  for (const layer of layers) {
    const added = new Array(times.length).fill(0);
    for (const part of growth) if (layer.of(part)) added[Math.round((part.at - first) / spanS) + 1] += part.entries;
    let total = 0;
    layer.values = added.map((n) => (total += n));
  }
  return areas({ label: "Vectors in the cache by the time they came", layers, times, format: count });
}

function verifying(look, leaving) {
  const result = h("div", { "aria-live": "polite" });
  const check = h("button", { type: "button", onclick: () => once(check, () => run(false)) }, "Verify");
  const repair = h("button", { type: "button", class: "danger", hidden: true, onclick: async () => {
    if (await confirmed("Delete the damaged vectors? They are computed again when somebody asks for them.", "Delete them")) once(check, () => run(true));
  } }, "Delete the damaged ones");
  async function run(repairing) {
    if (repairing) check.focus(); // the other one goes
    repair.hidden = true;
    const bar = h("progress", { max: 1, value: 0, "aria-label": "Verifying" });
    const share = h("span");
    let ended = false;
    fill(result, h("p", { class: "busy" }, bar, " ", share));
    try {
      for await (const { name, data } of events(`v1/cache/verify?repair=${repairing}`, { method: "POST", signal: leaving })) {
        if (name === "progress") {
          bar.value = data.total ? data.entries / data.total : 0;
          share.textContent = `${count(data.entries)} of ${count(data.total)} read, ${count(data.damaged)} damaged`;
        } else if (name === "end") {
          ended = true;
          fill(result, verdict(data));
          repair.hidden = repairing || !data.damaged;
        }
      }
      if (!ended) throw new Error("The server stopped before it had read everything.");
      look();
    } catch (error) {
      if (error.name !== "AbortError") fill(result, failure(error));
    }
  }
  return h("section", {}, h("h2", {}, "Verify"), h("p", { class: "why" }, "Reads every vector and checks its size, checksum and numbers."),
    h("div", { class: "buttons" }, check, repair), result);
}

function verdict({ entries, damaged, keys, repaired }) {
  const said = `${several(entries, "vector")} read, ${count(damaged)} damaged${repaired && damaged ? " and deleted" : ""}.`;
  return [h("p", { class: damaged ? "failure" : "fine" }, said), keys.length ? h("ul", {}, keys.map((key) => h("li", {}, h("code", { class: "long" }, key)))) : null];
}

function pruning(choice, look) {
  const days = h("input", { type: "number", min: 0, step: "any", inputmode: "decimal" });
  const gigabytes = h("input", { type: "number", min: 0, step: "any", inputmode: "decimal" });
  const result = h("div", { "aria-live": "polite" });
  const counting = h("button", { type: "submit" }, "Count what would go");
  const gone = h("button", { type: "button", class: "danger", hidden: true });
  let wanted = null; // what was counted last, and nothing else, is what may be deleted
  const forget = () => {
    wanted = null;
    gone.hidden = true;
    fill(result);
  };
  for (const control of [days, gigabytes, choice]) control.addEventListener("input", forget);
  async function dryRun(event) {
    event.preventDefault();
    forget();
    const mine = {
      ...(choice.value && { fingerprint: choice.value }),
      ...(days.value && { older_than_s: Number(days.value) * 86400 }),
      ...(gigabytes.value && { max_bytes: Math.round(Number(gigabytes.value) * 1e9) }),
    };
    if (!Object.keys(mine).length) return fill(result, failure({ message: "Choose a space, or fill in an age or a size." }));
    wanted = mine;
    fill(result, h("p", { class: "busy" }, "Counting …"));
    try {
      const { entries } = await post("v1/cache/prune", { ...mine, dry_run: true });
      if (wanted !== mine) return;
      fill(result, h("p", {}, entries ? `${several(entries, "vector")} would go. Those that a job still needs are spared.` : "Nothing would go."));
      gone.textContent = `Delete ${several(entries, "vector")}`;
      gone.hidden = !entries;
    } catch (error) {
      if (wanted === mine) fill(result, failure(error));
    }
  }
  gone.addEventListener("click", async () => {
    const mine = wanted;
    if (!(await confirmed(`${gone.textContent}? They would have to be computed again.`, gone.textContent)) || !mine) return;
    counting.focus(); // the other one goes
    forget();
    try {
      const { entries } = await post("v1/cache/prune", { ...mine, dry_run: false });
      fill(result, h("p", { class: "fine" }, `${several(entries, "vector")} deleted.`));
      look();
    } catch (error) {
      fill(result, failure(error));
    }
  });
  return h("section", {}, h("h2", {}, "Prune"), h("p", { class: "why" }, "Deletes vectors, the oldest first, that meet all that is filled in. The count comes first."),
    h("form", { onsubmit: dryRun },
      h("div", { class: "fields" }, field("Space", choice), field("Older than, days", days), field("Keep at most, GB", gigabytes)),
      h("div", { class: "buttons" }, counting, gone)),
    result);
}
