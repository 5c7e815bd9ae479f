// Try: how similar a few texts are, and documents in the order of a query.

import { offer, watchModels } from "./choices.js";
import { busyNote, emptyNote, errorNote, field, fill, h, liveRegion, runUnlessBusy, section } from "./dom.js";
import { count } from "./format.js";
import { post } from "./http.js";

export const title = "Try";

const MOST_TEXTS = 12;
const HOT = 82; // per cent of the colour from which page.css writes on it in the other colour

const TEXTS = [
  "The cat sleeps on the sofa.",
  "A kitten naps on the couch.",
  "Shares fell in New York.",
  "The stock market lost two percent.",
];
const QUERY = "How do I read a file line by line?";
const DOCUMENTS = [
  "Sort a list in place.",
  "Iterate over the lines of a text file.",
  "Open a socket and listen.",
  "Return the next line from the file, as a string.",
];

export function show(root) {
  const embedder = h("select");
  const reranker = h("select");
  const note = h("div");
  root.append(note, similaritySection(embedder), rerankSection(reranker));
  const showModels = (models) => {
    const embedders = models.filter((model) => model.kind === "embed");
    offer(embedder, embedders);
    offer(reranker, [...models.filter((model) => model.kind === "cross-encoder"), ...embedders]);
    fill(note, models.length ? null : emptyNote("No worker has served a model yet."));
  };
  return watchModels(showModels, (error) => fill(note, errorNote(error)));
}

function similaritySection(model) {
  const result = liveRegion();
  const texts = linesArea(TEXTS);
  const submit = (event) => run(event, result, () => similarity(model.value, lines(texts)));
  const controls = [field("Texts, one per line", texts, `up to ${MOST_TEXTS}`), modelAndButton(model, "Compare")];
  return section("Similarity", h("form", { onsubmit: submit }, controls), result);
}

function rerankSection(model) {
  const result = liveRegion();
  const query = h("input", { type: "text" });
  query.value = QUERY;
  const documents = linesArea(DOCUMENTS);
  const submit = (event) => run(event, result, () => rerank(model.value, query.value.trim(), lines(documents)));
  const inputs = [field("Query", query), field("Documents, one per line", documents)];
  return section("Rerank", h("form", { onsubmit: submit }, inputs, modelAndButton(model, "Rerank")), result);
}

function modelAndButton(model, label) {
  return h("div", { class: "fields" }, field("Model", model), h("button", { type: "submit" }, label));
}

function linesArea(examples) {
  const area = h("textarea", { rows: 5 });
  area.value = examples.join("\n");
  return area;
}

function lines(area) {
  const trimmed = area.value.split("\n").map((line) => line.trim());
  return trimmed.filter(Boolean);
}

function run(event, result, work) {
  event.preventDefault();
  return runUnlessBusy(event.target.querySelector("button"), async () => {
    fill(result, busyNote("Working …"));
    try {
      fill(result, await work());
    } catch (error) {
      fill(result, errorNote(error));
    }
  });
}

async function similarity(model, texts) {
  if (texts.length < 2) throw new Error("Enter at least two texts.");
  if (texts.length > MOST_TEXTS) throw new Error(`Enter at most ${MOST_TEXTS} texts; these are ${texts.length}.`);
  const { data, usage } = await post("v1/embeddings", { model, input: texts });
  const vectors = data.map((row) => unit(row.embedding));
  const size = `${count(usage.total_tokens)} tokens, ${vectors[0].length} dimensions`;
  return [
    h(
      "div",
      { class: "scroll", tabindex: 0, role: "region", "aria-label": "Cosine similarities" },
      heatMap(texts, vectors),
    ),
    h("p", { class: "why" }, `${size}. 1 is the same direction; 0 has nothing in common.`),
  ];
}

function heatMap(texts, vectors) {
  const headings = texts.map((text, i) => h("th", { scope: "col", title: text }, i + 1));
  const rows = texts.map((text, row) => {
    const label = h("span", { class: "clamped" }, h("b", {}, row + 1), " ", text);
    const cells = vectors.map((vector) => heatCell(dot(vectors[row], vector)));
    return h("tr", {}, h("th", { scope: "row", title: text }, label), cells);
  });
  return h(
    "table",
    { class: "heat" },
    h("caption", { class: "unseen" }, "Cosine similarity of each pair of texts"),
    h("thead", {}, h("tr", {}, h("td"), headings)),
    h("tbody", {}, rows),
  );
}

function heatCell(value) {
  const share = Math.round(Math.max(0, Math.min(1, value)) * 100);
  const cell = h("td", { class: share >= HOT ? "hot" : "" }, value.toFixed(2));
  cell.style.setProperty("--share", `${share}%`);
  return cell;
}

function unit(vector) {
  const length = Math.hypot(...vector);
  return vector.map((value) => value / length);
}

function dot(a, b) {
  return a.reduce((sum, value, i) => sum + value * b[i], 0);
}

async function rerank(model, query, documents) {
  if (!query) throw new Error("Enter a query.");
  if (!documents.length) throw new Error("Enter at least one document.");
  const { results } = await post("v1/rerank", { model, query, documents });
  const before = documents.map((text) => h("li", {}, text));
  const after = results.map(({ index, relevance_score }, place) => {
    const detail = `${relevance_score.toFixed(3)}, ${movement(index, place)}`;
    return h("li", {}, documents[index], " ", h("small", {}, detail));
  });
  return h("div", { class: "columns" }, orderedList("Before", before), orderedList("After", after));
}

function orderedList(heading, items) {
  return h("div", {}, h("h3", {}, heading), h("ol", {}, items));
}

function movement(before, after) {
  if (before === after) return "same place";
  return before > after ? `${before - after} up` : `${after - before} down`;
}
