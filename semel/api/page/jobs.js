// Jobs: a live list, the newest first.

import { split } from "./chart.js";
import { badge, failure, fill, frame, h, row, say } from "./dom.js";
import { ago, count, progress, rate, seconds } from "./format.js";
import { get } from "./http.js";
import { listen, now, withRate } from "./live.js";

export const title = "Jobs";

const PAGE = 50;
const MOST_AT_ONCE = 100; // of the route
const LOOK_MS = 10_000; // the stream tells of the newest jobs and of those under way, not of all that are shown
const COLUMNS = ["Job", "Status", "Progress", "Rate", "Left", "Outcomes", "Device", "Created"];
const STATUSES = ["validating", "in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled"];

export function show(root, _id, asked) {
  const rows = new Map();
  const heard = new Map(); // when each job was told of last
  const body = h("tbody", { role: "rowgroup" });
  const trouble = h("div");
  const empty = h("p", { class: "empty", hidden: true });
  const more = h("button", { type: "button", class: "quiet", hidden: true, onclick: () => { wanted += PAGE; look(); } }, "Show more");
  const filter = h("select", { "aria-label": "Status", onchange: () => restart() },
    h("option", { value: "" }, "all jobs"), STATUSES.map((status) => h("option", { value: status }, status.replace("_", " "))));
  let wanted = PAGE;
  let oldest = null; // of those that were loaded; null before the first answer
  let generation = 0; // an answer to an earlier question is not drawn

  function place(told) {
    const { job } = told;
    const known = rows.get(job.id);
    heard.set(job.id, performance.now());
    if (filter.value && job.status !== filter.value) {
      drop(job.id);
    } else if (known) {
      known.update(told);
    } else {
      const made = rowOf(told);
      rows.set(job.id, made);
      const older = [...body.children].find((element) => Number(element.dataset.created) < job.created_at);
      body.insertBefore(made.element, older ?? null);
    }
  }

  /** As many jobs as were asked for, in one go; what is gone meanwhile goes from the list, too. */
  async function look(byItself = false) {
    const mine = ++generation;
    const started = performance.now();
    const found = [];
    try {
      let page;
      do {
        const after = found.at(-1)?.id;
        const query = { limit: Math.min(MOST_AT_ONCE, wanted - found.length), ...(after && { after }), ...(filter.value && { status: filter.value }) };
        page = await get(`v1/jobs?${new URLSearchParams(query)}`, { byItself });
        found.push(...page.data);
      } while (page.has_more && found.length < wanted);
      if (mine !== generation) return;
      const there = new Set(found.map((job) => job.id));
      const newer = (id) => heard.get(id) > started; // the stream told of it while this was asked
      for (const id of rows.keys()) if (!there.has(id) && !newer(id)) drop(id);
      found.filter((job) => !newer(job.id)).forEach((job) => place(withRate(job)));
      oldest = page.has_more ? found.at(-1).created_at : 0;
      more.hidden = !page.has_more;
      fill(trouble);
      tellWhenEmpty();
    } catch (error) {
      if (mine === generation) fill(trouble, failure(error));
    }
  }

  function drop(id) {
    rows.get(id)?.element.remove();
    rows.delete(id);
  }

  function restart() {
    for (const id of rows.keys()) drop(id);
    wanted = PAGE;
    oldest = null;
    history.replaceState(null, "", filter.value ? `#jobs?status=${filter.value}` : "#jobs"); // for the way back
    look();
  }

  function tellWhenEmpty() {
    empty.hidden = rows.size > 0;
    fill(empty, filter.value ? "No job is in this state." : ["No jobs yet. ", h("a", { href: "#submit" }, "Submit a file"), "."]);
  }

  root.append(h("div", { class: "bar-of-controls" }, filter), trouble, frame("Jobs, the newest first", COLUMNS, body, "jobs"), empty, more);
  filter.value = STATUSES.includes(asked.get("status")) ? asked.get("status") : "";
  look();
  const looking = setInterval(() => {
    if (document.hidden) return;
    rows.forEach((shown) => shown.age());
    look(true);
  }, LOOK_MS);
  const deaf = listen((name) => {
    if (name === "history") look(true);
    if (name !== "jobs" || oldest === null) return;
    for (const told of now.news.map((id) => now.jobs.get(id))) {
      if (rows.has(told.job.id) || told.job.created_at >= oldest) place(told); // else of a page that is not shown
    }
    tellWhenEmpty();
  });
  return () => {
    generation += 1;
    clearInterval(looking);
    deaf();
  };
}

function rowOf(told) {
  const { job } = told;
  const [status, said, speed, left, outcomes, created] = Array.from({ length: 6 }, () => h("span"));
  const bar = h("progress", { max: 1, value: 0, "aria-label": `Progress of ${job.id}` });
  const device = h("span");
  const element = row(COLUMNS, [
    [h("a", { href: `#jobs/${job.id}`, title: job.id }, job.metadata.file ?? short(job.id)), h("small", {}, job.metadata.file ? `${short(job.id)}, ${job.model}` : job.model)],
    status, [bar, said], speed, left, outcomes, device, created,
  ], { "data-job": job.id, "data-created": job.created_at });
  let before = "";
  function update({ job, done, texts_per_s, eta_s }) {
    const state = JSON.stringify([job.status, job.counts, job.why, done, texts_per_s, eta_s]);
    if (state === before) return;
    before = state;
    fill(status, badge(job.status.replace("_", " "), job.status));
    bar.value = job.counts.total ? done / job.counts.total : 0;
    say(said, progress(job, done));
    say(speed, texts_per_s ? `${rate(texts_per_s)}/s` : "–");
    say(left, job.status === "in_progress" ? seconds(eta_s) : "–");
    for (const idle of [speed, left]) idle.parentElement.classList.toggle("idle", idle.textContent === "–");
    fill(outcomes, split(job.counts, job.counts.total), job.counts.failed ? h("small", { class: "bad" }, `${count(job.counts.failed)} failed`) : null);
    fill(device, job.device, h("small", { title: job.why }, job.why.replace(`${job.device}: `, "")));
  }
  const age = () => say(created, ago(job.created_at));
  update(told);
  age();
  return { element, update, age };
}

/** As much of an id as tells jobs apart at a glance. */
function short(id) {
  return id.length > 14 ? `${id.slice(0, 12)}…` : id;
}
