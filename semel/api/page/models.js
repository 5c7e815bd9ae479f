// Models and devices: what is loaded where, what is missing and how to get it.

import { badge, busyNote, button, emptyNote, errorNote, fill, h, runUnlessBusy, section } from "./dom.js";
import { bytes, count, rate, seconds } from "./format.js";
import { get } from "./http.js";
import { listen, now } from "./live.js";
import { table } from "./table.js";

export const title = "Models and devices";

export function show(root) {
  const workers = h("div");
  const machine = h("div", {}, busyNote("Inspecting the machine, which takes a few seconds …"));
  const refresh = button("Refresh", { class: "quiet", onclick: () => runUnlessBusy(refresh, inspect) });
  let stopped = false;
  async function inspect() {
    try {
      const inventory = await get("v1/inventory");
      const { data } = await get("v1/models");
      if (!stopped) fill(machine, inventoryTables(inventory, data));
    } catch (error) {
      if (!stopped) fill(machine, errorNote(error));
    }
  }
  root.append(section("Workers", workers), h("section", {}, machine, h("div", { class: "buttons" }, refresh)));
  runUnlessBusy(refresh, inspect);
  const stopWorkers = keepWorkersCurrent(workers);
  return () => {
    stopped = true;
    stopWorkers();
  };
}

/** Draws the workers now and when they change; returns a function that stops it. */
function keepWorkersCurrent(root) {
  let drawn = "";
  function draw() {
    if (!now.overview) return;
    const workers = now.overview.pools.flatMap((pool) => pool.workers);
    const state = JSON.stringify(workers);
    if (state !== drawn) fill(root, workers.length ? workersTable(workers) : noWorker());
    drawn = state;
  }
  draw();
  return listen((name) => name === "overview" && draw());
}

function noWorker() {
  return emptyNote("No worker is alive. Start one: ", h("code", {}, "semel worker --device cpu"));
}

function workersTable(workers) {
  const columns = ["Device", "Status", "Loaded", "Serves", "Load time", "Memory", "Rate", "Reason"];
  const rows = workers.map((worker) => [
    [worker.device, h("small", {}, `${worker.host}, process ${worker.pid}`)],
    badge(worker.status),
    worker.loaded.join(", ") || "nothing yet",
    worker.models.join(", "),
    worker.loaded.length ? seconds(worker.load_time_s) : "–",
    bytes(worker.memory_usage_bytes),
    worker.texts_per_s ? `${rate(worker.texts_per_s)}/s` : "–",
    [worker.why, worker.about && h("small", {}, worker.about)],
  ]);
  return table("Workers", columns, rows);
}

function inventoryTables({ devices, models }, served) {
  return [
    h("h2", {}, "Configured models"),
    modelsTable(models, served),
    h("h2", {}, "Devices of the machine that runs the API"),
    devicesTable(devices),
  ];
}

function modelsTable(models, served) {
  const columns = ["Name", "Kind", "Source", "Dimensions", "Longest text", "Size", "Status"];
  const rows = models.map((model) => [
    model.name,
    model.kind,
    h("code", { class: "long" }, model.source),
    model.dimensions ? count(model.dimensions) : "–",
    model.max_tokens ? `${count(model.max_tokens)} tokens` : "–",
    model.megabytes ? bytes(model.megabytes * 2 ** 20) : "–",
    modelStatus(
      model,
      served.find((candidate) => candidate.id === model.name),
    ),
  ]);
  return table("Models", columns, rows);
}

function modelStatus(model, served) {
  if (served?.live) return badge("served", "healthy");
  if (model.error) return [badge("missing", "failed"), h("small", {}, model.error)];
  const device = model.name.split("@")[1] ?? "cpu";
  const advice = `The files are on this machine; start a worker: semel worker --device ${device}`;
  return [badge("no live worker", "standby"), h("small", {}, advice)];
}

function devicesTable(devices) {
  const rows = devices.map((device) => [
    device.name,
    badge(device.usable ? "usable" : "missing", device.usable ? "healthy" : "standby"),
    device.why,
  ]);
  return table("Devices", ["Device", "", "Reason, or how to get it"], rows);
}
