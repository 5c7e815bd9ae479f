// Stacked areas over time, as SVG: sharp at every size, coloured by the style sheet, and told in words to those who
// do not see it.

import { h, svg } from "./dom.js";
import { tick } from "./format.js";

const WIDTH = 600;
const HEIGHT = 160;

/**
 * @param label what the chart shows, in words.
 * @param layers [{name, kind, values}]: the lowest first; `kind` is a class of the style sheet; nothing is drawn of
 *   a value that is null.
 * @param times Unix seconds, one for each value.
 * @param format of a value.
 */
export function areas({ label, layers, times, format }) {
  const sums = times.map((_, i) => layers.reduce((sum, layer) => sum + layer.values[i], 0));
  const top = rounded(Math.max(...sums, 0));
  const base = times.map(() => 0);
  const drawn = layers.map((layer) => {
    const below = [...base];
    layer.values.forEach((value, i) => (base[i] += value));
    return svg("path", { class: `area ${layer.kind}`, d: outline(below, base, times, top, layer.values) });
  });
  const last = (layer) => (layer.values.length && layer.values.at(-1) !== null ? format(layer.values.at(-1)) : "–");
  const span = times.length ? times.at(-1) - times[0] : 0;
  return h("figure", { class: "chart" },
    h("div", { class: "scale", "aria-hidden": "true" }, h("span", {}, format(top)), h("span", {}, format(top / 2)), h("span", {}, "0")),
    svg("svg", {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
      "aria-label": `${label}. Last: ${layers.map((layer) => `${layer.name} ${last(layer)}`).join(", ")}.`,
    },
      [0, 0.5, 1].map((share) => svg("line", { class: "grid", x1: 0, x2: WIDTH, y1: share * HEIGHT, y2: share * HEIGHT })),
      drawn),
    h("div", { class: "times", "aria-hidden": "true" },
      times.length > 1 ? [h("span", {}, tick(times[0], span)), h("span", {}, tick(times.at(-1), span))] : "no data yet"),
    h("figcaption", {}, layers.map((layer) => h("span", { class: `key ${layer.kind}` }, `${layer.name} `, h("b", {}, last(layer))))));
}

/** One closed shape for each run of values. */
function outline(below, above, times, top, values) {
  if (times.length < 2) return "";
  const span = times.at(-1) - times[0];
  const x = (i, aside) => (((times[i] - times[0]) / span) * WIDTH + aside).toFixed(1);
  const y = (value) => (HEIGHT - (value / top) * HEIGHT).toFixed(1);
  const runs = [[]];
  values.forEach((value, i) => (value === null ? runs.push([]) : runs.at(-1).push(i)));
  return runs.filter((run) => run.length).map((run) => {
    const wide = run.length > 1 ? 0 : WIDTH / times.length / 2; // a single point is seen, too
    const ends = [[run[0], -wide], ...run.slice(1, -1).map((i) => [i, 0]), [run.at(-1), wide]];
    const there = ends.map(([i, aside]) => `${x(i, aside)},${y(above[i])}`);
    const back = ends.map(([i, aside]) => `${x(i, aside)},${y(below[i])}`).reverse();
    return `M${[...there, ...back].join("L")}Z`;
  }).join("");
}

/** The next of 1, 2, 5, 10, … so that the scale does not jump with every point. */
function rounded(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}

/** A bar cut by outcome; the title says it in words. */
export function split(counts, total) {
  const bar = h("span", { class: "split", role: "img", "aria-label": words(counts), title: words(counts) });
  for (const kind of OUTCOMES) {
    const part = h("i", { class: kind });
    part.style.width = `${total ? (counts[kind] / total) * 100 : 0}%`;
    bar.append(part);
  }
  return bar;
}

export const OUTCOMES = ["hit", "computed", "coalesced", "failed"];

/** How many texts ended in which way. */
export function words(counts) {
  const said = OUTCOMES.filter((kind) => counts[kind]).map((kind) => `${counts[kind].toLocaleString("en")} ${kind}`);
  return said.join(", ") || "outcomes are told as chunks end";
}
