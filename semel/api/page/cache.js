// Cache: what it holds, how it grew, whether it is sound, and what to delete.

import { areas } from "./chart.js";
import { emptyNote, errorNote, fill, h, section, tile } from "./dom.js";
import { ago, bytes, count, hitRate, seconds, spaceName } from "./format.js";
import { get } from "./http.js";
import { visible } from "./live.js";
import { PruneSection } from "./prune.js";
import { table } from "./table.js";
import { verifySection } from "./verify.js";

export const title = "Cache";

const LOOK_MS = 10_000;
const LAYERS = 4; // spaces with a colour of their own; the others share one

export function show(root) {
  const tiles = h("dl", { class: "tiles" });
  const [growth, error] = [h("div"), h("div")];
  const spaces = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Vector spaces" });
  const leaving = new AbortController();
  const { signal } = leaving;
  const prune = new PruneSection(() => look());
  const draw = (cache) => {
    fill(tiles, figures(cache));
    fill(growth, growthChart(cache));
    fill(
      spaces,
      cache.spaces.length ? spacesTable(cache.spaces) : emptyNote("The cache is empty. The first job fills it."),
    );
    prune.offerSpaces(cache.spaces);
  };
  let timer = null;
  async function look({ background = false } = {}) {
    clearTimeout(timer);
    if (background) await visible();
    if (signal.aborted) return;
    try {
      draw(await get("v1/cache", { signal, background }));
      fill(error);
    } catch (caught) {
      if (caught.name === "AbortError") return;
      fill(error, errorNote(caught));
    }
    clearTimeout(timer);
    timer = setTimeout(look, LOOK_MS, { background: true });
  }
  root.append(error, tiles, section("Growth", growth), section("Vector spaces", spaces));
  root.append(verifySection(look, signal), prune.element);
  look();
  return () => {
    clearTimeout(timer);
    leaving.abort();
  };
}

function figures({ totals, spaces }) {
  const sum = (name) => spaces.reduce((total, space) => total + space[name], 0);
  return [
    tile("Vectors", count(sum("entries"))),
    tile("Size", bytes(sum("bytes")), "without indexes"),
    tile("Hit rate", hitRate(totals)),
    tile("Device time saved", seconds(totals.saved_s)),
  ];
}

function spacesTable(spaces) {
  const columns = ["Model", "Revision", "Precision", "Dimensions", "Vectors", "Size", "Last used", "Hit rate"];
  const rows = spaces.map((space) => [
    [space.model, space.prompt_name && h("small", {}, `prompt ${space.prompt_name}`)],
    h("code", { title: `weights ${space.weights}, fingerprint ${space.fingerprint}` }, space.weights.slice(0, 12)),
    space.precision,
    count(space.dim),
    count(space.entries),
    bytes(space.bytes),
    ago(space.used_at),
    hitRate(space),
  ]);
  return table("Vector spaces", columns, rows);
}

/** The vectors that are in the cache now, by when they were stored: one layer for each of the large spaces. */
function growthChart({ spaces, growth, span_s: spanS }) {
  if (!growth.length) return emptyNote("No vectors yet.");
  const first = growth[0].at;
  const steps = Math.max(1, Math.round((growth.at(-1).at - first) / spanS)) + 1;
  const times = Array.from({ length: steps + 1 }, (_, i) => first + i * spanS);
  const step = (part) => Math.round((part.at - first) / spanS) + 1;
  const layers = layerSpecs(spaces).map(({ name, kind, includes }) => {
    const added = times.map(() => 0);
    for (const part of growth) if (includes(part)) added[step(part)] += part.entries;
    return { name, kind, values: runningTotal(added) };
  });
  return areas({ label: "Vectors in the cache by the time they were stored", layers, times, format: count });
}

function layerSpecs(spaces) {
  const large = spaces.slice(0, LAYERS);
  const specs = large.map((space, i) => ({
    name: spaceName(space),
    kind: `layer${i}`,
    includes: (part) => part.fingerprint === space.fingerprint,
  }));
  if (spaces.length <= LAYERS) return specs;
  const named = new Set(large.map((space) => space.fingerprint));
  return [...specs, { name: "others", kind: "others", includes: (part) => !named.has(part.fingerprint) }];
}

function runningTotal(added) {
  let total = 0;
  return added.map((n) => {
    total += n;
    return total;
  });
}
