// Submit: a file, what it would cost, go.

import { offer, watchModels } from "./choices.js";
import { failure, field, fill, h, notify, table, tile } from "./dom.js";
import { bytes, count, seconds, share } from "./format.js";
import { upload } from "./http.js";
import { listen, now } from "./live.js";

export const title = "Submit";

const SETTLED_MS = 300;
const SUFFIXES = [".jsonl", ".ndjson", ".csv", ".parquet", ".txt"];

export function show(root) {
  let file = null;
  let asking = null; // the estimate under way
  let waiting = null;
  let sending = false;
  const input = h("input", { type: "file", id: "file", accept: SUFFIXES.join(","), class: "unseen", onclick: () => (input.value = ""), onchange: () => take(input.files[0]) }); // emptied, or the same file, mended, would be no change
  const name = h("p", { class: "picked" }, "No file chosen.");
  const drop = h("label", {
    for: "file", class: "drop",
    ondragover: (event) => { event.preventDefault(); drop.classList.add("over"); },
    ondragleave: () => drop.classList.remove("over"),
    ondrop: (event) => { event.preventDefault(); drop.classList.remove("over"); takeAll(event.dataTransfer.files); },
  }, h("b", {}, "Drop a file here, or choose one"), h("small", {}, SUFFIXES.join(", ")));
  const model = h("select", { onchange: () => { choosePrompts(); ask(); } });
  const prompt = h("select", { onchange: () => ask() });
  const device = h("select", { onchange: () => ask() });
  const column = h("input", { type: "text", value: "text", onchange: () => ask() });
  const nothing = h("div");
  const answer = h("div", { "aria-live": "polite" });
  const go = h("button", { type: "submit", disabled: true }, "Embed");
  const fields = h("fieldset", { class: "fields" },
    field("Model", model), field("Prompt", prompt), field("Device", device), field("Field of the text", column, "in .jsonl, .csv and .parquet"));
  let known = [];

  function chooseDevices() {
    const working = (now.overview?.pools ?? []).filter((pool) => pool.status !== "failed").map((pool) => pool.device);
    const wanted = ["auto", ...working];
    if (wanted.join() === [...device.options].map((option) => option.value).join()) return;
    const before = device.value;
    fill(device, wanted.map((kind) => h("option", {}, kind)));
    device.value = wanted.includes(before) ? before : "auto";
    if (before && device.value !== before) ask(); // what was told was of a device that is gone
  }

  function choosePrompts() {
    const prompts = known.find((one) => one.id === model.value)?.prompts ?? [];
    const before = prompt.value;
    fill(prompt, h("option", { value: "" }, "none"), prompts.map((one) => h("option", {}, one)));
    prompt.value = prompts.includes(before) ? before : "";
  }

  function take(chosen) {
    if (!chosen || sending) return;
    file = chosen;
    fill(name, `${file.name}, ${bytes(file.size)}`);
    ask();
  }

  function takeAll({ length, 0: first }) {
    if (length > 1) fill(answer, failure({ message: `${length} files were dropped; a job takes one.` }));
    else take(first);
  }

  function form() {
    const data = new FormData();
    const fields = { model: model.value, prompt_name: prompt.value, device: device.value, text_field: column.value || "text" };
    for (const [key, value] of Object.entries(fields)) data.append(key, value);
    data.append("metadata", JSON.stringify({ file: file.name.toWellFormed() })); // by which people know the job
    data.append("file", file, file.name);
    return data;
  }

  function send(path, verb, options) {
    const bar = h("progress", { max: 1, value: 0, "aria-label": verb });
    fill(answer, h("p", { class: "busy" }, `${verb} … `, bar));
    return upload(path, form(), { ...options, onProgress: (share) => (bar.value = share) });
  }

  /** Asks what the job would cost, once the choices have settled. */
  function ask() {
    if (sending) return;
    asking?.abort();
    clearTimeout(waiting);
    go.disabled = true;
    if (file && known.length) waiting = setTimeout(estimate, SETTLED_MS);
  }

  async function estimate() {
    const mine = (asking = new AbortController());
    try {
      const estimate = await send("v1/jobs/estimate", "Reading", { signal: mine.signal });
      fill(answer, told(estimate));
      go.disabled = estimate.failed === estimate.texts;
    } catch (error) {
      if (mine === asking && error.name !== "AbortError") fill(answer, failure(error));
    }
  }

  async function submit(event) {
    event.preventDefault();
    const stay = (closing) => closing.preventDefault(); // asks before the tab is closed on an upload
    sending = go.disabled = fields.disabled = input.disabled = true;
    addEventListener("beforeunload", stay);
    const once = { "idempotency-key": crypto.getRandomValues(new Uint32Array(4)).join("-") };
    try {
      const job = await send("v1/jobs", "Sending", { more: once });
      if (root.isConnected) location.hash = `#jobs/${job.id}`;
      else notify(`${file.name} was sent: `, h("a", { href: `#jobs/${job.id}` }, "its job"));
    } catch (error) {
      const doubt = error.status ? "" : ". It may have arrived all the same: look under Jobs before you send it again.";
      fill(answer, failure({ message: error.message + doubt }));
      if (!root.isConnected) notify(`${file.name} was not sent: ${error.message}${doubt}`);
    } finally {
      removeEventListener("beforeunload", stay);
      sending = go.disabled = fields.disabled = input.disabled = false;
    }
  }

  root.append(h("form", { onsubmit: submit },
    input, drop, name,
    fields, nothing, answer, h("div", { class: "buttons" }, go)));
  chooseDevices();
  const deaf = listen((name) => name === "overview" && chooseDevices());
  const chosen = () => JSON.stringify([prompt.value, known.find((one) => one.id === model.value)?.fingerprint]);
  const unwatch = watchModels((list) => {
    const before = known.length ? chosen() : null;
    known = list;
    offer(model, list);
    fill(nothing, list.length ? null : h("p", { class: "empty" }, "No worker has served a model yet: start one."));
    choosePrompts();
    if (chosen() !== before) ask(); // else the file need not be read again
  }, (error) => fill(nothing, failure(error)));
  return () => {
    deaf();
    unwatch();
    clearTimeout(waiting);
    asking?.abort();
  };
}

function told(estimate) {
  const keys = Object.keys(estimate.preview[0] ?? { text: "" });
  return [
    h("dl", { class: "tiles" },
      tile("Texts", count(estimate.texts), `${count(estimate.distinct)} distinct`),
      tile("Cached already", count(estimate.cached), share(estimate.cached, estimate.texts)),
      tile("To compute", count(estimate.to_compute), duration(estimate)),
      estimate.failed ? tile("Cannot be embedded", count(estimate.failed), "they keep their places") : null),
    h("p", { class: "why" }, `On ${estimate.why}.`),
    estimate.bad_rows.length ? h("ul", { class: "bad" }, estimate.bad_rows.map((row) => h("li", {}, `${row.message}`))) : null,
    h("h2", {}, "The first rows"),
    table("The first rows", keys, estimate.preview.map((row) => keys.map((key) => h("span", { class: "quoted" }, row[key])))),
  ];
}

function duration({ to_compute, cached, compute_s, queue_s, device }) {
  if (!to_compute) return cached ? "all done at once" : "nothing here can be embedded";
  const queue = queue_s >= 1 ? `, after ${seconds(queue_s)} of other work` : "";
  return compute_s === null ? `${device} has not been measured yet` : `about ${seconds(compute_s)}${queue}`;
}
