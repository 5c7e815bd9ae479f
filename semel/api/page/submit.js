// Submit: choose a file, see what the job would cost, send it.

import { offer, watchModels } from "./choices.js";
import { busyNote, emptyNote, errorNote, field, fill, h, liveRegion, notify } from "./dom.js";
import { estimateReport } from "./estimate.js";
import { FilePicker } from "./file-picker.js";
import { upload } from "./http.js";
import { listen, now } from "./live.js";

export const title = "Submit";

const SETTLED_MS = 300;

export function show(root) {
  const form = new SubmitForm(root);
  root.append(form.element);
  form.offerDevices();
  const stopListening = listen((name) => name === "overview" && form.offerDevices());
  const stopWatching = watchModels(
    (models) => form.offerModels(models),
    (error) => fill(form.note, errorNote(error)),
  );
  return () => {
    stopListening();
    stopWatching();
    form.stop();
  };
}

class SubmitForm {
  models = [];
  sending = false;
  estimating = null; // the AbortController of the latest estimate
  timer = null;

  constructor(root) {
    this.root = root;
    this.picker = new FilePicker((files) => this.take(files));
    const askAgain = { onchange: () => this.estimateSoon() };
    this.model = h("select", { onchange: () => this.onModelChange() });
    this.prompt = h("select", askAgain);
    this.device = h("select", askAgain);
    this.column = h("input", { type: "text", value: "text", ...askAgain });
    this.note = h("div");
    this.answer = liveRegion();
    this.embed = h("button", { type: "submit", disabled: true }, "Embed");
    this.fields = h(
      "fieldset",
      { class: "fields" },
      field("Model", this.model),
      field("Prompt", this.prompt),
      field("Device", this.device),
      field("Text field", this.column, "for .jsonl, .csv and .parquet"),
    );
    const submit = (event) => {
      event.preventDefault();
      this.submit();
    };
    const buttons = h("div", { class: "buttons" }, this.embed);
    const inputs = [...this.picker.elements, this.fields, this.note, this.answer, buttons];
    this.element = h("form", { onsubmit: submit }, inputs);
  }

  take(files) {
    if (files.length > 1) {
      fill(this.answer, errorNote({ message: `A job takes one file, but you dropped ${files.length}.` }));
      return;
    }
    if (!files.length || this.sending) return;
    this.picker.choose(files[0]);
    this.estimateSoon();
  }

  offerModels(models) {
    const before = this.models.length ? this.choice() : null;
    this.models = models;
    offer(this.model, models);
    fill(this.note, models.length ? null : emptyNote("No worker has served a model yet. Start a worker."));
    this.offerPrompts();
    if (this.choice() !== before) this.estimateSoon(); // the same choice needs no second estimate
  }

  /** What an estimate depends on, apart from the fields that ask for one themselves. */
  choice() {
    return JSON.stringify([this.prompt.value, this.chosenModel()?.fingerprint]);
  }

  chosenModel() {
    return this.models.find((model) => model.id === this.model.value);
  }

  onModelChange() {
    this.offerPrompts();
    this.estimateSoon();
  }

  offerPrompts() {
    const prompts = this.chosenModel()?.prompts ?? [];
    const before = this.prompt.value;
    const options = prompts.map((prompt) => h("option", {}, prompt));
    fill(this.prompt, h("option", { value: "" }, "none"), options);
    this.prompt.value = prompts.includes(before) ? before : "";
  }

  offerDevices() {
    const pools = now.overview?.pools ?? [];
    const working = pools.filter((pool) => pool.status !== "failed").map((pool) => pool.device);
    const devices = ["auto", ...working];
    if (devices.join() === [...this.device.options].map((option) => option.value).join()) return;
    const before = this.device.value;
    const options = devices.map((device) => h("option", {}, device));
    fill(this.device, options);
    this.device.value = devices.includes(before) ? before : "auto";
    if (before && this.device.value !== before) this.estimateSoon(); // the estimate is for a device that is gone
  }

  /** Asks what the job would cost, once the choices have settled. */
  estimateSoon() {
    if (this.sending) return;
    this.stop();
    this.embed.disabled = true;
    if (this.picker.file && this.models.length) this.timer = setTimeout(() => this.estimate(), SETTLED_MS);
  }

  async estimate() {
    const controller = new AbortController();
    this.estimating = controller;
    try {
      const estimate = await this.send("v1/jobs/estimate", "Reading", { signal: controller.signal });
      fill(this.answer, estimateReport(estimate));
      this.embed.disabled = estimate.failed === estimate.texts;
    } catch (error) {
      if (controller === this.estimating && error.name !== "AbortError") fill(this.answer, errorNote(error));
    }
  }

  async submit() {
    this.setSending(true);
    addEventListener("beforeunload", preventDefault); // asks before the tab is closed during the upload
    const headers = { "idempotency-key": crypto.getRandomValues(new Uint32Array(4)).join("-") };
    try {
      this.onSent(await this.send("v1/jobs", "Sending", { headers }));
    } catch (error) {
      this.onRefused(error);
    } finally {
      removeEventListener("beforeunload", preventDefault);
      this.setSending(false);
    }
  }

  setSending(sending) {
    this.sending = sending;
    for (const control of [this.embed, this.fields, this.picker.input]) control.disabled = sending;
  }

  onSent(job) {
    const address = `#jobs/${job.id}`;
    if (this.root.isConnected) location.hash = address;
    else notify(`${this.picker.file.name} was sent: `, h("a", { href: address }, "open its job"));
  }

  onRefused(error) {
    const doubt = error.status ? "" : ". It may have arrived nevertheless: look under Jobs before you send it again.";
    const message = error.message + doubt;
    fill(this.answer, errorNote({ message }));
    if (!this.root.isConnected) notify(`${this.picker.file.name} was not sent: ${message}`);
  }

  send(path, verb, options) {
    const bar = h("progress", { max: 1, value: 0, "aria-label": verb });
    fill(this.answer, busyNote(`${verb} … `, bar));
    const onProgress = (share) => {
      bar.value = share;
    };
    return upload(path, this.formData(), { ...options, onProgress });
  }

  formData() {
    const { file } = this.picker;
    const data = new FormData();
    data.append("model", this.model.value);
    data.append("prompt_name", this.prompt.value);
    data.append("device", this.device.value);
    data.append("text_field", this.column.value || "text");
    data.append("metadata", JSON.stringify({ file: file.name.toWellFormed() })); // lists show the job by this name
    data.append("file", file, file.name);
    return data;
  }

  /** Gives up the estimate, whether it waits or is under way. */
  stop() {
    clearTimeout(this.timer);
    this.estimating?.abort();
  }
}

function preventDefault(event) {
  event.preventDefault();
}
