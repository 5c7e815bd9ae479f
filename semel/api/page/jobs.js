// Jobs: a live list, newest first.

import { button, errorNote, fill, h } from "./dom.js";
import { statusText } from "./format.js";
import { get } from "./http.js";
import { COLUMNS, JobRow } from "./job-row.js";
import { listen, now, withRate } from "./live.js";
import { tableAround, tableBody } from "./table.js";

export const title = "Jobs";

const PAGE = 50;
const LARGEST_PAGE = 100; // the limit of GET /v1/jobs
const LOOK_MS = 10_000; // the stream reports open jobs and the newest ones, not every job in the list
const STATUSES = [
  "validating",
  "in_progress",
  "finalizing",
  "completed",
  "failed",
  "expired",
  "cancelling",
  "cancelled",
];

export function show(root, _id, query) {
  const list = new JobList(query.get("status"));
  root.append(...list.elements);
  list.look();
  const timer = setInterval(() => list.refresh(), LOOK_MS);
  const stopListening = listen((name) => list.onEvent(name));
  return () => {
    list.stop();
    clearInterval(timer);
    stopListening();
  };
}

class JobList {
  rows = new Map(); // by the id of the job
  drawnAt = new Map(); // when each row was last drawn, by the id of the job
  wantedRows = PAGE;
  oldest = null; // when the last job in the list was created; null before the first answer
  generation = 0; // counts the requests; an answer to an earlier one is not drawn

  constructor(status) {
    this.body = tableBody();
    this.error = h("div");
    this.empty = h("p", { class: "empty", hidden: true });
    this.more = button("Show more", { class: "quiet", hidden: true, onclick: () => this.showMore() });
    this.filter = h(
      "select",
      { "aria-label": "Status", onchange: () => this.restart() },
      h("option", { value: "" }, "all jobs"),
      STATUSES.map((value) => h("option", { value }, statusText(value))),
    );
    this.filter.value = STATUSES.includes(status) ? status : "";
    const controls = h("div", { class: "bar-of-controls" }, this.filter);
    const jobs = tableAround("Jobs, newest first", COLUMNS, this.body, "jobs");
    this.elements = [controls, this.error, jobs, this.empty, this.more];
  }

  /** Loads as many jobs as the list should have, and drops from the list the jobs that are gone. */
  async look({ background = false } = {}) {
    this.generation += 1;
    const { generation } = this;
    const started = performance.now();
    try {
      const { jobs, hasMore } = await this.load(background);
      if (generation !== this.generation) return;
      this.draw(jobs, started);
      this.oldest = hasMore ? jobs.at(-1).created_at : 0;
      this.more.hidden = !hasMore;
      fill(this.error);
      this.showWhetherEmpty();
    } catch (error) {
      if (generation === this.generation) fill(this.error, errorNote(error));
    }
  }

  async load(background) {
    const jobs = [];
    for (;;) {
      const query = new URLSearchParams({ limit: Math.min(LARGEST_PAGE, this.wantedRows - jobs.length) });
      if (jobs.length) query.set("after", jobs.at(-1).id);
      if (this.filter.value) query.set("status", this.filter.value);
      const page = await get(`v1/jobs?${query}`, { background });
      jobs.push(...page.data);
      if (!page.has_more || jobs.length >= this.wantedRows) return { jobs, hasMore: page.has_more };
    }
  }

  /** Draws the answer to a request, except where the stream has reported a job since the request was sent. */
  draw(jobs, requestedAt) {
    const ids = new Set(jobs.map((job) => job.id));
    const isNewer = (id) => this.drawnAt.get(id) > requestedAt;
    for (const id of this.rows.keys()) if (!ids.has(id) && !isNewer(id)) this.drop(id);
    for (const job of jobs) if (!isNewer(job.id)) this.place(withRate(job));
  }

  /** Draws a job in its row, or in a new row at its place. */
  place(report) {
    const { job } = report;
    const row = this.rows.get(job.id);
    this.drawnAt.set(job.id, performance.now());
    if (this.filter.value && job.status !== this.filter.value) this.drop(job.id);
    else if (row) row.update(report);
    else this.insert(report);
  }

  insert(report) {
    const row = new JobRow(report);
    this.rows.set(report.job.id, row);
    const isOlder = (element) => Number(element.dataset.created) < report.job.created_at;
    this.body.insertBefore(row.element, [...this.body.children].find(isOlder) ?? null);
  }

  drop(id) {
    this.rows.get(id)?.element.remove();
    this.rows.delete(id);
  }

  showMore() {
    this.wantedRows += PAGE;
    this.look();
  }

  restart() {
    for (const id of this.rows.keys()) this.drop(id);
    this.wantedRows = PAGE;
    this.oldest = null;
    const status = this.filter.value;
    history.replaceState(null, "", status ? `#jobs?status=${status}` : "#jobs"); // so that Back keeps the filter
    this.look();
  }

  refresh() {
    if (document.hidden) return;
    for (const row of this.rows.values()) row.updateAge();
    this.look({ background: true });
  }

  onEvent(name) {
    if (name === "history") this.look({ background: true });
    if (name !== "jobs" || this.oldest === null) return;
    for (const report of now.changed.map((id) => now.jobs.get(id))) {
      const { id, created_at } = report.job;
      if (this.rows.has(id) || created_at >= this.oldest) this.place(report); // older jobs are on a later page
    }
    this.showWhetherEmpty();
  }

  showWhetherEmpty() {
    this.empty.hidden = this.rows.size > 0;
    const submit = h("a", { href: "#submit" }, "Submit a file");
    fill(this.empty, this.filter.value ? "No job has this status." : ["No jobs yet. ", submit, "."]);
  }

  stop() {
    this.generation += 1; // what is still under way is not drawn
  }
}
