// One job: its progress, its chunks, what failed and why; cancel, retry, delete, download.

import { confirmed } from "./dialog.js";
import { announce, errorNote, fill, runUnlessBusy } from "./dom.js";
import { FailedTexts } from "./failed-texts.js";
import { download, get, post, remove } from "./http.js";
import { drawChunks, drawJob, ENDED, jobParts } from "./job-parts.js";
import { listen, now, visible, withRate } from "./live.js";

export const title = "Job";

const LOOK_MS = 2000;
const LOOKS_PER_CHUNKS = 3; // reading the chunks counts all of them in the database
const CHUNKS_SHOWN = 600;

export function show(root, id) {
  const view = new JobView(id);
  root.append(...view.parts.elements);
  view.look();
  const stopListening = listen((name) => view.onEvent(name));
  return () => {
    view.stop();
    stopListening();
  };
}

class JobView {
  stopped = false;
  ended = null; // whether the job has ended; null before the first look
  looks = 0;
  timer = null;

  constructor(id) {
    this.id = id;
    this.url = `v1/jobs/${encodeURIComponent(id)}`;
    this.parts = jobParts(id);
    this.failed = new FailedTexts(this.parts.failed, this.url);
    const { cancel, retry, deleteJob, formats } = this.parts;
    cancel.addEventListener("click", () => this.cancel());
    retry.addEventListener("click", () => this.act(retry, () => this.retry()));
    deleteJob.addEventListener("click", () => this.delete());
    for (const [format, button] of formats) {
      button.addEventListener("click", () => this.act(button, () => this.download(format)));
    }
  }

  /** Draws the job, its chunks and its failed texts; repeats itself while the job is open. */
  async look({ background = false } = {}) {
    clearTimeout(this.timer);
    if (background) await visible();
    if (this.stopped) return;
    try {
      await this.drawAll(background);
      fill(this.parts.error);
    } catch (error) {
      if (this.stopped) return;
      fill(this.parts.error, errorNote(error));
      if (error.status === 404) return;
    }
    clearTimeout(this.timer);
    if (!this.ended && !this.stopped) this.timer = setTimeout(() => this.look({ background: true }), LOOK_MS);
  }

  async drawAll(background) {
    const job = await get(this.url, { background });
    const chunksAreDue = ENDED.includes(job.status) || this.looks % LOOKS_PER_CHUNKS === 0;
    const chunks = chunksAreDue ? await get(`${this.url}/chunks?limit=${CHUNKS_SHOWN}`, { background }) : null;
    this.looks += 1;
    if (this.stopped) return;
    this.draw(withRate(job));
    if (chunks) drawChunks(this.parts.chunks, chunks, job);
    await this.failed.show(job.counts.failed);
  }

  draw(report) {
    const focused = document.activeElement;
    drawJob(this.parts, report);
    if (focused.hidden) document.querySelector("h1").focus({ preventScroll: true }); // its button is gone
    const ended = ENDED.includes(report.job.status);
    if (ended && this.ended === false) announce(`Job ${report.job.status}`);
    this.ended = ended;
  }

  onEvent(name) {
    if (name === "history") this.look({ background: true });
    if (name !== "jobs" || !now.changed.includes(this.id)) return;
    const report = now.jobs.get(this.id);
    if (ENDED.includes(report.job.status) !== this.ended) this.look({ background: true });
    else this.draw(report);
  }

  /** Does what a button is for, then shows the job again, or why it was refused. */
  act(button, action) {
    return runUnlessBusy(button, async () => {
      fill(this.parts.refusal);
      try {
        await action();
        this.looks = 0;
        await this.look();
      } catch (error) {
        fill(this.parts.refusal, errorNote(error));
      }
    });
  }

  async cancel() {
    const question = "Cancel this job? The vectors that it has computed stay in the cache.";
    if (!(await confirmed(question, "Cancel the job"))) return;
    this.act(this.parts.cancel, () => post(`${this.url}/cancel`));
  }

  async retry() {
    const job = await post(`${this.url}/retry`);
    if (ENDED.includes(job.status)) {
      throw new Error("No text was run again: each of them would fail for the same reason.");
    }
    this.ended = false;
  }

  async delete() {
    const question = "Delete this job and its list of texts? Its vectors stay in the cache.";
    if (!(await confirmed(question, "Delete this job"))) return;
    this.act(this.parts.deleteJob, async () => {
      await remove(this.url);
      now.jobs.delete(this.id);
      this.stopped = true;
      location.hash = "#jobs";
    });
  }

  async download(format) {
    const job = await get(this.url); // a link could not show why it fails
    announce("Preparing the download");
    await download(`${this.url}/results?format=${format}`, `${fileStem(job) ?? this.id}.${format}`);
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.timer);
  }
}

/** The name of the file that the job was made from, without its suffix; null without one. */
function fileStem({ metadata }) {
  return metadata.file?.replace(/\.[^.]*$/, "") || null;
}
