// One job: how far it is, its chunks, what failed and why; cancel, retry, delete, download.

import { split, words } from "./chart.js";
import { scores } from "./choices.js";
import { announce, badge, confirmed, fact, failure, fill, h, once, say, table } from "./dom.js";
import { at, count, progress, rate, seconds, share, texts } from "./format.js";
import { download, get, post, remove } from "./http.js";
import { listen, now, seen, withRate } from "./live.js";

export const title = "Job";

const ENDED = ["completed", "failed", "expired", "cancelled"];
const FORMATS = [["ndjson", "NDJSON"], ["parquet", "Parquet"], ["arrow", "Arrow"], ["npy", "NumPy"]];
const LOOK_MS = 2000;
const CHUNKS_EVERY = 3; // looks: all chunks of a job are counted for it
const CHUNKS_SHOWN = 600;
const FAILED_PAGE = 100;

export function show(root, id) {
  const parts = layout();
  root.append(h("p", {}, h("a", { href: "#jobs" }, "← all jobs")), parts.refused, parts.trouble, headline(id, parts), parts.buttons, parts.downloads, parts.facts,
    h("section", {}, h("h2", {}, "Chunks"), parts.chunks), parts.failed);
  const address = `v1/jobs/${encodeURIComponent(id)}`;
  const failed = failedTexts(parts.failed, address);
  let stopped = false;
  let ended = null; // until the first look
  let looks = 0;
  let timer = null;

  function draw(told) {
    const focused = document.activeElement;
    drawHead(parts, told);
    if (focused.hidden) document.querySelector("h1").focus({ preventScroll: true }); // a button that is no longer of use
    const over = ENDED.includes(told.job.status);
    if (over && ended === false) announce(`Job ${told.job.status}`);
    ended = over;
  }

  /** Draws the job, its chunks and what failed; comes back by itself while the job is open. */
  async function look(byItself = false) {
    clearTimeout(timer);
    if (byItself) await seen();
    if (stopped) return;
    try {
      const job = await get(address, { byItself });
      const over = ENDED.includes(job.status);
      const chunks = over || looks % CHUNKS_EVERY === 0 ? await get(`${address}/chunks?limit=${CHUNKS_SHOWN}`, { byItself }) : null;
      looks += 1;
      if (stopped) return;
      draw(withRate(job));
      if (chunks) drawChunks(parts.chunks, chunks, job);
      await failed.show(job.counts.failed);
      fill(parts.trouble);
    } catch (error) {
      if (stopped) return;
      fill(parts.trouble, failure(error));
      if (error.status === 404) return;
    }
    clearTimeout(timer);
    if (!ended && !stopped) timer = setTimeout(look, LOOK_MS, true);
  }

  const refused = (error) => fill(parts.refused, failure(error));

  /** What a button is for. */
  const act = (button, what) => once(button, async () => {
    fill(parts.refused);
    try {
      await what();
      looks = 0;
      await look();
    } catch (error) {
      refused(error);
    }
  });

  parts.cancel.addEventListener("click", async () => {
    if (await confirmed("Stop this job? What was computed stays in the cache.", "Stop the job")) act(parts.cancel, () => post(`${address}/cancel`));
  });
  parts.retry.addEventListener("click", () => act(parts.retry, async () => {
    const job = await post(`${address}/retry`);
    if (ENDED.includes(job.status)) throw new Error("Nothing was run again: each of these texts would fail for the same reason.");
    ended = false;
  }));
  parts.remove.addEventListener("click", async () => {
    if (!(await confirmed("Forget this job and its list of texts? Its vectors stay in the cache.", "Forget it"))) return;
    act(parts.remove, async () => {
      await remove(address);
      now.jobs.delete(id);
      stopped = true;
      location.hash = "#jobs";
    });
  });
  for (const [format, button] of parts.formats) {
    button.addEventListener("click", () => act(button, async () => {
      const job = await get(address); // a link would not say why it fails
      announce("Preparing the download");
      await download(`${address}/results?format=${format}`, `${stem(job) ?? id}.${format}`);
    }));
  }

  look();
  const deaf = listen((name) => {
    if (name === "history") look(true);
    if (name !== "jobs" || !now.news.includes(id)) return;
    const told = now.jobs.get(id);
    if (ENDED.includes(told.job.status) !== ended) look(true);
    else draw(told);
  });
  return () => {
    stopped = true;
    clearTimeout(timer);
    deaf();
  };
}

/** The name of the file that it was made of, without its ending. */
function stem({ metadata }) {
  return metadata.file?.replace(/\.[^.]*$/, "") || null;
}

function layout() {
  const button = (text, kind = "") => h("button", { type: "button", class: kind, hidden: true }, text);
  const [cancel, retry, gone] = [button("Cancel", "danger"), button("Retry what failed", "quiet"), button("Forget", "quiet")];
  const formats = FORMATS.map(([format, name]) => [format, button(name, "quiet")]);
  return {
    cancel, retry, formats, remove: gone,
    trouble: h("div"), refused: h("div"), facts: h("dl", { class: "facts wide" }), chunks: h("div"), failed: h("section", { hidden: true }),
    status: h("span"), share: h("span"), speed: h("span"), outcomes: h("div"),
    name: h("b"),
    bar: h("progress", { max: 1, value: 0, "aria-label": "Progress" }),
    buttons: h("div", { class: "buttons" }, cancel, retry, gone),
    downloads: h("div", { class: "buttons", hidden: true }, h("span", {}, "Download"), formats.map(([, made]) => made)),
  };
}

function headline(id, parts) {
  return h("div", { class: "headline" },
    parts.name, h("code", { class: "long" }, id), parts.status, parts.bar, h("p", {}, parts.share, " ", parts.speed), parts.outcomes);
}

function drawHead(parts, { job, done, texts_per_s, eta_s }) {
  const { counts } = job;
  const over = ENDED.includes(job.status);
  const ended_at = job[`${job.status}_at`];
  const begun_at = job.retried_at ?? job.created_at;
  say(parts.name, job.metadata.file ?? "");
  say(parts.retry, job.status === "completed" ? "Retry what failed" : "Run what is left");
  fill(parts.status, badge(job.status.replace("_", " "), job.status));
  parts.bar.value = counts.total ? done / counts.total : 0;
  say(parts.share, job.status === "validating" ? progress(job, done) : `${share(done, counts.total)}, ${count(done)} of ${texts(counts.total)}`);
  say(parts.speed, over || !texts_per_s ? "" : `· ${rate(texts_per_s)} texts/s · ${seconds(eta_s)} left`);
  fill(parts.outcomes, split(counts, counts.total), h("p", {}, words(counts)), job.error && h("p", { class: "failure" }, job.error.message));
  parts.cancel.hidden = over;
  parts.retry.hidden = !over || job.in_progress_at === null || (!counts.failed && job.status === "completed");
  parts.remove.hidden = !over;
  parts.downloads.hidden = job.status !== "completed";
  for (const [format, button] of parts.formats) button.hidden = format === "npy" && counts.failed > 0;
  fill(parts.facts,
    fact("model", job.prompt_name ? `${job.model}, prompt ${job.prompt_name}` : job.model),
    fact("device", job.why),
    fact("gives", scores(job) ? "a score for each pair" : `vectors of ${count(job.dimensions)} dimensions`),
    fact("tokens", count(counts.tokens)),
    counts.truncated ? fact("cut to the model's length", texts(counts.truncated)) : null,
    fact("created", at(job.created_at)),
    job.retried_at && fact("retried", at(job.retried_at)),
    job.first_result_at >= begun_at && fact("first result", `after ${seconds(job.first_result_at - begun_at)}`),
    over && fact(job.status, `${at(ended_at)}, after ${seconds(ended_at - begun_at)}`),
    fact(over ? "kept until" : "must be done by", at(job.expires_at)),
    Object.entries(job.metadata).map(([name, value]) => fact(name, value)));
}

function drawChunks(root, { states, data, has_more }, job) {
  const said = Object.entries(states).map(([state, n]) => `${count(n)} ${state}`).join(", ");
  fill(root,
    h("p", {}, said || "none yet"),
    h("div", { class: "strip", role: "img", "aria-label": `Chunks of ${job.id}: ${said}` },
      data.map((chunk) => h("i", {
        class: chunk.failed && chunk.state === "done" ? "done some-failed" : chunk.state,
        title: `chunk ${chunk.position}: ${chunk.state}, ${texts(chunk.texts)}${chunk.failed ? `, ${count(chunk.failed)} failed` : ""}${chunk.worker ? `, ${chunk.worker}` : ""}`,
      }))),
    has_more ? h("small", {}, `The first ${count(data.length)} are drawn.`) : null);
}

/** The texts that failed: loaded again when their number changed, as many as were shown. */
function failedTexts(root, address) {
  const heading = h("h2");
  const list = h("div");
  const trouble = h("div");
  const more = h("button", { type: "button", class: "quiet", hidden: true, onclick: () => load(rows.length + FAILED_PAGE).catch(() => {}) }, "Show more");
  root.append(heading, list, trouble, more);
  let rows = [];
  let shown = 0;
  let asked = 0;

  async function load(wanted) {
    const mine = ++asked;
    const found = [];
    try {
      let page;
      do {
        page = await get(`${address}/failed?limit=${FAILED_PAGE}&after=${found.at(-1)?.index ?? -1}`);
        found.push(...page.data);
      } while (page.has_more && found.length < wanted);
      if (mine !== asked) return;
      rows = found;
      more.hidden = !page.has_more;
      fill(trouble);
      fill(list, table("Failed texts", ["Index", "Id", "Text", "Reason"],
        rows.map((row) => [count(row.index), row.id === null ? "–" : typeof row.id === "object" ? JSON.stringify(row.id) : String(row.id), h("span", { class: "quoted" }, row.text === null ? "(not shown to this key)" : row.text || "–"), row.error.message])));
    } catch (error) {
      fill(trouble, failure(error));
      throw error;
    }
  }

  return {
    async show(failed) {
      root.hidden = !failed;
      if (failed === shown) return;
      say(heading, `Failed: ${count(failed)}`);
      if (failed) await load(Math.max(FAILED_PAGE, rows.length));
      shown = failed;
    },
  };
}
