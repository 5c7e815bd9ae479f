// Try: how similar a few texts are; documents in the order of a query.

import { offer, scores, watchModels } from "./choices.js";
import { failure, field, fill, h, once } from "./dom.js";
import { count } from "./format.js";
import { post } from "./http.js";

export const title = "Try";

const MOST_TEXTS = 12;
const HOT = 82; // per cent of the colour from which page.css writes on it in the other one

const TEXTS = "The cat sleeps on the sofa.\nA kitten naps on the couch.\nShares fell in New York.\nThe stock market lost two percent.";
const QUERY = "How do I read a file line by line?";
const DOCUMENTS = "Sort a list in place.\nIterate over the lines of a text file.\nOpen a socket and listen.\nReturn the next line from the file, as a string.";

export function show(root) {
  const similar = h("div", { "aria-live": "polite" });
  const ranked = h("div", { "aria-live": "polite" });
  const texts = h("textarea", { rows: 5 });
  const documents = h("textarea", { rows: 5 });
  const query = h("input", { type: "text" });
  [texts.value, documents.value, query.value] = [TEXTS, DOCUMENTS, QUERY];
  const model = h("select");
  const ranker = h("select");
  const nothing = h("div");
  root.append(nothing,
    h("section", {}, h("h2", {}, "Similarity"),
      h("form", { onsubmit: (event) => run(event, similar, () => similarity(model.value, lines(texts))) },
        field("Texts, one a line", texts, `up to ${MOST_TEXTS}`),
        h("div", { class: "fields" }, field("Model", model), h("button", { type: "submit" }, "Compare"))),
      similar),
    h("section", {}, h("h2", {}, "Rerank"),
      h("form", { onsubmit: (event) => run(event, ranked, () => rerank(ranker.value, query.value.trim(), lines(documents))) },
        field("Query", query), field("Documents, one a line", documents),
        h("div", { class: "fields" }, field("Model", ranker), h("button", { type: "submit" }, "Rerank"))),
      ranked));
  return watchModels((list) => {
    offer(model, list.filter((one) => !scores(one)));
    offer(ranker, [...list.filter(scores), ...list.filter((one) => !scores(one))]);
    fill(nothing, list.length ? null : h("p", { class: "empty" }, "No worker has served a model yet."));
  }, (error) => fill(nothing, failure(error)));
}

function lines(area) {
  return area.value.split("\n").map((line) => line.trim()).filter(Boolean);
}

function run(event, place, work) {
  event.preventDefault();
  return once(event.target.querySelector("button"), async () => {
    fill(place, h("p", { class: "busy" }, "Working …"));
    try {
      fill(place, await work());
    } catch (error) {
      fill(place, failure(error));
    }
  });
}

async function similarity(model, texts) {
  if (texts.length < 2) throw new Error("Two texts at the least can be compared.");
  if (texts.length > MOST_TEXTS) throw new Error(`${texts.length} texts make too large a map; take ${MOST_TEXTS} at the most.`);
  const { data, usage } = await post("v1/embeddings", { model, input: texts });
  const vectors = data.map((row) => unit(row.embedding));
  const cosine = (a, b) => vectors[a].reduce((sum, value, i) => sum + value * vectors[b][i], 0);
  return [
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Cosine similarities" },
      h("table", { class: "heat" }, h("caption", { class: "unseen" }, "Cosine similarity of each pair of texts"),
        h("thead", {}, h("tr", {}, h("td"), texts.map((text, i) => h("th", { scope: "col", title: text }, i + 1)))),
        h("tbody", {}, texts.map((text, row) => h("tr", {}, h("th", { scope: "row", title: text }, h("span", { class: "clamped" }, h("b", {}, row + 1), " ", text)),
          texts.map((_, column) => cell(cosine(row, column)))))))),
    h("p", { class: "why" }, `${count(usage.total_tokens)} tokens, ${data[0].embedding.length} dimensions; 1 is the same direction, 0 has nothing in common.`),
  ];
}

function unit(vector) {
  const length = Math.hypot(...vector);
  return vector.map((value) => value / length);
}

function cell(value) {
  const share = Math.round(Math.max(0, Math.min(1, value)) * 100);
  const made = h("td", { class: share >= HOT ? "hot" : "" }, value.toFixed(2));
  made.style.setProperty("--share", `${share}%`);
  return made;
}

async function rerank(model, query, documents) {
  if (!query) throw new Error("A query is missing.");
  if (!documents.length) throw new Error("There is no document to put in order.");
  const { results } = await post("v1/rerank", { model, query, documents });
  return h("div", { class: "columns" },
    h("div", {}, h("h3", {}, "Before"), h("ol", {}, documents.map((text) => h("li", {}, text)))),
    h("div", {}, h("h3", {}, "After"), h("ol", {}, results.map((result, place) => h("li", {},
      documents[result.index], " ", h("small", {}, `${result.relevance_score.toFixed(3)}, ${moved(result.index, place)}`))))));
}

function moved(before, after) {
  if (before === after) return "same place";
  return before > after ? `${before - after} up` : `${after - before} down`;
}
