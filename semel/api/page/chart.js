// Stacked areas over time, as SVG: sharp at every size, coloured by the style sheet, and described in words for those
// who do not see them.

import { fill, h, svg } from "./dom.js";
import { tick } from "./format.js";

const WIDTH = 600;
const HEIGHT = 160;

/**
 * @param label what the chart shows, in words.
 * @param layers [{name, kind, values}], the lowest first. `kind` is a class of the style sheet; a value that is null
 *   leaves a gap.
 * @param times Unix seconds, one for each value.
 * @param format turns a value into text.
 */
export function areas({ label, layers, times, format }) {
  const sums = times.map((_, i) => layers.reduce((sum, layer) => sum + layer.values[i], 0));
  const top = scaleTop(Math.max(...sums, 0));
  const latest = layers.map(({ name, kind, values }) => {
    const last = values.at(-1);
    return { name, kind, value: last === undefined || last === null ? "–" : format(last) };
  });
  const summary = `${label}. Last: ${latest.map(({ name, value }) => `${name} ${value}`).join(", ")}.`;
  return h(
    "figure",
    { class: "chart" },
    valueAxis(top, format),
    svg(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": summary },
      [0, 0.5, 1].map(gridLine),
      stacked(layers, times, top),
    ),
    timeAxis(times),
    legend(latest),
  );
}

function valueAxis(top, format) {
  const ticks = [format(top), format(top / 2), "0"];
  return h(
    "div",
    { class: "scale", "aria-hidden": "true" },
    ticks.map((text) => h("span", {}, text)),
  );
}

function gridLine(height) {
  return svg("line", { class: "grid", x1: 0, x2: WIDTH, y1: height * HEIGHT, y2: height * HEIGHT });
}

function timeAxis(times) {
  const axis = h("div", { class: "times", "aria-hidden": "true" });
  if (times.length < 2) return fill(axis, "no data yet");
  const ends = [times[0], times.at(-1)];
  const span = ends[1] - ends[0];
  return fill(
    axis,
    ends.map((time) => h("span", {}, tick(time, span))),
  );
}

function legend(latest) {
  const entries = latest.map(({ name, kind, value }) =>
    h("span", { class: `key ${kind}` }, `${name} `, h("b", {}, value)),
  );
  return h("figcaption", {}, entries);
}

/** One path for each layer, on top of those before it. */
function stacked(layers, times, top) {
  let below = times.map(() => 0);
  return layers.map(({ kind, values }) => {
    const above = below.map((height, i) => height + values[i]);
    const path = svg("path", { class: `area ${kind}`, d: outline(below, above, times, top, values) });
    below = above;
    return path;
  });
}

/** One closed shape for each run of values without a gap. */
function outline(below, above, times, top, values) {
  if (times.length < 2) return "";
  const span = times.at(-1) - times[0];
  const x = (i, aside) => (((times[i] - times[0]) / span) * WIDTH + aside).toFixed(1);
  const y = (value) => (HEIGHT - (value / top) * HEIGHT).toFixed(1);
  const shapes = runs(values).map((run) => {
    const half = run.length > 1 ? 0 : WIDTH / times.length / 2; // a single point needs a width to be visible
    const points = [[run[0], -half], ...run.slice(1, -1).map((i) => [i, 0]), [run.at(-1), half]];
    const there = points.map(([i, aside]) => `${x(i, aside)},${y(above[i])}`);
    const back = points.map(([i, aside]) => `${x(i, aside)},${y(below[i])}`).reverse();
    return `M${[...there, ...back].join("L")}Z`;
  });
  return shapes.join("");
}

/** The indices of the values, in runs between those that are null. */
function runs(values) {
  const found = [[]];
  for (const [i, value] of values.entries()) {
    if (value === null) found.push([]);
    else found.at(-1).push(i);
  }
  return found.filter((run) => run.length);
}

/** The next of 1, 2, 5, 10, … so that the scale does not jump with every point. */
function scaleTop(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}
