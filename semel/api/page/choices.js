// The models that a form offers: those that some worker has served.

import { fill, h } from "./dom.js";
import { get } from "./http.js";
import { listen, now } from "./live.js";

const AGAIN_MS = 5000;

/** The models: those with a live worker first, then the default, then by name. */
async function servedModels() {
  const { data } = await get("v1/models");
  return data.sort(
    (a, b) => Number(b.live) - Number(a.live) || Number(b.default) - Number(a.default) || a.id.localeCompare(b.id),
  );
}

/**
 * Calls `onModels` with the models, now and whenever they change, and `onError` when they cannot be read. Returns a
 * function that stops it.
 */
export function watchModels(onModels, onError) {
  let shown = "";
  let stopped = false;
  async function look() {
    try {
      const models = await servedModels();
      const state = JSON.stringify(models.map(({ created, ...rest }) => rest)); // `created` changes with each heartbeat
      if (stopped || state === shown) return;
      shown = state;
      onModels(models);
    } catch (error) {
      if (stopped) return;
      shown = ""; // the next answer replaces the error even if the models are the same
      onError(error);
      setTimeout(() => stopped || look(), AGAIN_MS);
    }
  }
  look();
  const stopListening = onServedModelsChange(look);
  return () => {
    stopped = true;
    stopListening();
  };
}

/** Calls `callback` when workers serve other models than before, or the connection was lost in between. */
function onServedModelsChange(callback) {
  let before = null;
  return listen((name) => {
    if (name === "history") callback();
    if (name !== "overview") return;
    const served = now.overview.pools
      .flatMap((pool) => pool.models)
      .sort()
      .join();
    if (before !== null && served !== before) callback();
    before = served;
  });
}

/** Offers these models; the choice is kept if it is among them. */
export function offer(select, models) {
  const before = select.value;
  fill(select, models.map(modelOption));
  if (models.some((model) => model.id === before)) select.value = before;
}

function modelOption(model) {
  return h("option", { value: model.id }, model.live ? model.id : `${model.id} (no live worker)`);
}
