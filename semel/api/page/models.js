// Models and devices: what is loaded where, what is missing and how to get it.

import { badge, failure, fill, h, once, table } from "./dom.js";
import { bytes, count, rate, seconds } from "./format.js";
import { get } from "./http.js";
import { listen, now } from "./live.js";

export const title = "Models and devices";

export function show(root) {
  const workers = h("div");
  const machine = h("div", {}, h("p", { class: "busy" }, "Looking at this machine, which takes some seconds …"));
  const again = h("button", { type: "button", class: "quiet", onclick: () => once(again, look) }, "Look again");
  let stopped = false;
  let before = "";
  const draw = () => {
    if (!now.overview) return;
    const all = now.overview.pools.flatMap((pool) => pool.workers);
    const state = JSON.stringify(all);
    if (state !== before) fill(workers, all.length ? listed(all) : h("p", { class: "empty" }, "No worker is alive. Start one: ", h("code", {}, "semel worker --device cpu")));
    before = state;
  };
  async function look() {
    try {
      const inventory = await get("v1/inventory");
      const { data } = await get("v1/models");
      if (!stopped) fill(machine, had(inventory, data));
    } catch (error) {
      if (!stopped) fill(machine, failure(error));
    }
  }
  root.append(h("section", {}, h("h2", {}, "Workers"), workers), h("section", {}, machine, h("div", { class: "buttons" }, again)));
  draw();
  once(again, look);
  const deaf = listen((name) => name === "overview" && draw());
  return () => {
    stopped = true;
    deaf();
  };
}

function listed(workers) {
  return table("Workers", ["Device", "Status", "In memory", "Serves", "Loaded in", "Memory", "Rate", "Why"],
    workers.map((worker) => [
      [worker.device, h("small", {}, `${worker.host}, process ${worker.pid}`)],
      badge(worker.status), worker.loaded.join(", ") || "nothing yet", worker.models.join(", "),
      worker.loaded.length ? seconds(worker.load_time_s) : "–", bytes(worker.memory_usage_bytes),
      worker.texts_per_s ? `${rate(worker.texts_per_s)}/s` : "–", [worker.why, worker.about && h("small", {}, worker.about)],
    ]));
}

function had({ devices, models }, served) {
  return [
    h("h2", {}, "Models of the configuration"),
    table("Models", ["Name", "Source", "Dimensions", "Reads", "Size", "State"], models.map((model) => [
      model.name, h("code", { class: "long" }, model.source),
      model.dimensions ? count(model.dimensions) : "–",
      model.max_tokens ? `${count(model.max_tokens)} tokens` : "–",
      model.megabytes ? bytes(model.megabytes * 2 ** 20) : "–",
      state(model, served.find((one) => one.id === model.name)),
    ])),
    h("h2", {}, "Devices of the machine that runs the API"),
    table("Devices", ["Device", "", "Why, or how to get it"], devices.map((device) => [
      device.name, badge(device.usable ? "usable" : "missing", device.usable ? "healthy" : "standby"), device.why,
    ])),
  ];
}

function state(model, served) {
  if (served?.live) return badge("served", "healthy");
  if (model.error) return [badge("missing", "failed"), h("small", {}, model.error)];
  return [badge("no live worker", "standby"), h("small", {}, `its files are here; start one: semel worker --device ${model.name.split("@")[1] ?? "cpu"}`)];
}
