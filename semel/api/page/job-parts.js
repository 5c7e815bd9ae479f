// The parts of a job's view, and how they show its state.

import { badge, button, fact, fill, h, section, setText } from "./dom.js";
import { count, dateTime, progress, rate, seconds, share, statusText, texts } from "./format.js";
import { outcomeBar, outcomeSummary } from "./outcomes.js";

export const ENDED = ["completed", "failed", "expired", "cancelled"];

const FORMATS = [
  ["ndjson", "NDJSON"],
  ["parquet", "Parquet"],
  ["arrow", "Arrow"],
  ["npy", "NumPy"],
];

/** The elements of the view by name, and in order as `elements`. */
export function jobParts(id) {
  const parts = { ...buttons(), ...headline(id) };
  parts.refusal = h("div");
  parts.error = h("div");
  parts.facts = h("dl", { class: "facts wide" });
  parts.chunks = h("div");
  parts.failed = h("section", { hidden: true });
  const back = h("p", {}, h("a", { href: "#jobs" }, "← All jobs"));
  const { refusal, error, head, actions, downloads, facts, chunks, failed } = parts;
  parts.elements = [back, refusal, error, head, actions, downloads, facts, section("Chunks", chunks), failed];
  return parts;
}

function buttons() {
  const cancel = button("Cancel", { class: "danger", hidden: true });
  const retry = button("Retry failed texts", { class: "quiet", hidden: true });
  const deleteJob = button("Delete job", { class: "quiet", hidden: true });
  const actions = h("div", { class: "buttons" }, cancel, retry, deleteJob);
  const formats = FORMATS.map(([format, name]) => [format, button(name, { class: "quiet", hidden: true })]);
  const downloadButtons = formats.map(([, made]) => made);
  const downloads = h("div", { class: "buttons", hidden: true }, h("span", {}, "Download"), downloadButtons);
  return { cancel, retry, deleteJob, actions, formats, downloads };
}

function headline(id) {
  const [status, done, speed] = [h("span"), h("span"), h("span")];
  const name = h("b");
  const outcomes = h("div");
  const bar = h("progress", { max: 1, value: 0, "aria-label": "Progress" });
  const code = h("code", { class: "long" }, id);
  const head = h("div", { class: "headline" }, name, code, status, bar, h("p", {}, done, " ", speed), outcomes);
  return { head, name, status, done, speed, outcomes, bar };
}

/** Shows what is known of the job: its counts, rate and facts, and the buttons that are of use. */
export function drawJob(parts, { job, done, texts_per_s, eta_s }) {
  const { counts } = job;
  const ended = ENDED.includes(job.status);
  setText(parts.name, job.metadata.file ?? "");
  fill(parts.status, badge(statusText(job.status), job.status));
  parts.bar.value = counts.total ? done / counts.total : 0;
  setText(parts.done, progressOf(job, done));
  setText(parts.speed, ended || !texts_per_s ? "" : `· ${rate(texts_per_s)} texts/s · ${seconds(eta_s)} left`);
  fill(
    parts.outcomes,
    outcomeBar(counts),
    h("p", {}, outcomeSummary(counts)),
    job.error && h("p", { class: "failure" }, job.error.message),
  );
  fill(parts.facts, facts(job));
  showButtons(parts, job);
}

function progressOf(job, done) {
  if (job.status === "validating") return progress(job, done);
  return `${share(done, job.counts.total)}, ${count(done)} of ${texts(job.counts.total)}`;
}

function showButtons(parts, job) {
  const ended = ENDED.includes(job.status);
  const completed = job.status === "completed";
  setText(parts.retry, completed ? "Retry failed texts" : "Run remaining texts");
  parts.cancel.hidden = ended;
  parts.retry.hidden = !ended || job.in_progress_at === null || (!job.counts.failed && completed);
  parts.deleteJob.hidden = !ended;
  parts.downloads.hidden = !completed;
  for (const [format, download] of parts.formats) download.hidden = format === "npy" && job.counts.failed > 0;
}

const OUTPUTS = {
  "cross-encoder": () => "a score for each pair",
  classifier: ({ labels }) => `a score for each of ${count(labels.length)} labels`,
  sparse: () => "sparse vectors",
  embed: ({ dimensions }) => `vectors of ${count(dimensions)} dimensions`,
};

function cut({ truncated, tokens, unread }) {
  return `${texts(truncated)}: about ${Math.round((100 * unread) / (tokens + unread))} % of all tokens were not read`;
}

function facts(job) {
  return [
    fact("model", job.prompt_name ? `${job.model}, prompt ${job.prompt_name}` : job.model),
    fact("device", job.why),
    fact("output", OUTPUTS[job.kind](job)),
    fact("tokens", count(job.counts.tokens)),
    job.counts.truncated ? fact("cut at the model's limit", cut(job.counts)) : null,
    times(job),
    Object.entries(job.metadata).map(([name, value]) => fact(name, value)),
  ];
}

function times(job) {
  const ended = ENDED.includes(job.status);
  const endedAt = job[`${job.status}_at`];
  const startedAt = job.retried_at ?? job.created_at;
  return [
    fact("created", dateTime(job.created_at)),
    job.retried_at && fact("retried", dateTime(job.retried_at)),
    job.first_result_at >= startedAt && fact("first result", `after ${seconds(job.first_result_at - startedAt)}`),
    ended && fact(job.status, `${dateTime(endedAt)}, after ${seconds(endedAt - startedAt)}`),
    fact(ended ? "kept until" : "must finish by", dateTime(job.expires_at)),
  ];
}

/** Shows how many chunks are in each state, and a square for each of the first ones. */
export function drawChunks(root, { states, data, has_more }, job) {
  const summary = Object.entries(states).map(([state, n]) => `${count(n)} ${state}`);
  const label = `Chunks of ${job.id}: ${summary.join(", ")}`;
  fill(
    root,
    h("p", {}, summary.join(", ") || "none yet"),
    h("div", { class: "strip", role: "img", "aria-label": label }, data.map(chunkSquare)),
    has_more ? h("small", {}, `Only the first ${count(data.length)} chunks are shown.`) : null,
  );
}

function chunkSquare({ position, state, texts: size, failed, worker }) {
  const parts = [state, texts(size)];
  if (failed) parts.push(`${count(failed)} failed`);
  if (worker) parts.push(worker);
  const kind = failed && state === "done" ? "done some-failed" : state;
  return h("i", { class: kind, title: `chunk ${position}: ${parts.join(", ")}` });
}
