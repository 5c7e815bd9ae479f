// A row of the list of jobs.

import { badge, fill, h, setText } from "./dom.js";
import { ago, count, progress, rate, seconds, statusText } from "./format.js";
import { outcomeBar } from "./outcomes.js";
import { tableRow } from "./table.js";

export const COLUMNS = ["Job", "Status", "Progress", "Rate", "Time left", "Outcomes", "Device", "Created"];

export class JobRow {
  drawn = ""; // what the row shows, so that it changes only when the job does

  constructor(report) {
    const { job } = report;
    this.createdAt = job.created_at;
    const names = ["status", "progress", "rate", "left", "outcomes", "device", "created"];
    const cells = Object.fromEntries(names.map((name) => [name, h("span")]));
    this.cells = cells;
    this.bar = h("progress", { max: 1, value: 0, "aria-label": `Progress of ${job.id}` });
    const rest = [cells.rate, cells.left, cells.outcomes, cells.device, cells.created];
    const row = [jobLink(job), cells.status, [this.bar, cells.progress], ...rest];
    this.element = tableRow(COLUMNS, row, { "data-job": job.id, "data-created": job.created_at });
    this.update(report);
    this.updateAge();
  }

  update({ job, done, texts_per_s, eta_s }) {
    const state = JSON.stringify([job.status, job.counts, job.why, done, texts_per_s, eta_s]);
    if (state === this.drawn) return;
    this.drawn = state;
    const { cells } = this;
    fill(cells.status, badge(statusText(job.status), job.status));
    this.bar.value = job.counts.total ? done / job.counts.total : 0;
    setText(cells.progress, progress(job, done));
    setText(cells.rate, texts_per_s ? `${rate(texts_per_s)}/s` : "–");
    setText(cells.left, job.status === "in_progress" ? seconds(eta_s) : "–");
    for (const cell of [cells.rate, cells.left]) cell.parentElement.classList.toggle("idle", cell.textContent === "–");
    fill(cells.outcomes, outcomeBar(job.counts), failedNote(job.counts));
    fill(cells.device, job.device, h("small", { title: job.why }, job.why.replace(`${job.device}: `, "")));
  }

  updateAge() {
    setText(this.cells.created, ago(this.createdAt));
  }
}

function jobLink({ id, model, metadata }) {
  const { file } = metadata;
  return [
    h("a", { href: `#jobs/${id}`, title: id }, file ?? shortId(id)),
    h("small", {}, file ? `${shortId(id)}, ${model}` : model),
  ];
}

function failedNote({ failed }) {
  return failed ? h("small", { class: "bad" }, `${count(failed)} failed`) : null;
}

/** Shortens an id to what distinguishes jobs in a list. */
function shortId(id) {
  return id.length > 14 ? `${id.slice(0, 12)}…` : id;
}
