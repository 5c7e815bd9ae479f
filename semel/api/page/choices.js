// What a form may choose from: models that some worker has served.

import { fill, h } from "./dom.js";
import { get } from "./http.js";
import { listen, now } from "./live.js";

const AGAIN_MS = 5000;

/** The models by name, those with a live worker first, and of these the default. */
async function models() {
  const { data } = await get("v1/models");
  return data.sort((a, b) => Number(b.live) - Number(a.live) || Number(b.default) - Number(a.default) || a.id.localeCompare(b.id));
}

/**
 * Calls `take` with the models, now and whenever other ones are served or the server was away, and `refused` with an
 * error; returns how to stop that.
 */
export function watchModels(take, refused) {
  let served = null;
  let taken = "";
  let stopped = false;
  const look = () => models().then((list) => {
    const state = JSON.stringify(list.map(({ created, ...what }) => what)); // `created` is a sign of life
    if (stopped || state === taken) return;
    taken = state;
    take(list);
  }).catch((error) => {
    if (stopped) return;
    taken = ""; // what was refused is to be taken back
    refused(error);
    setTimeout(() => stopped || look(), AGAIN_MS);
  });
  look();
  const deaf = listen((name) => {
    if (name === "overview") {
      const seen = now.overview.pools.flatMap((pool) => pool.models).sort().join();
      if (served !== null && seen !== served) look();
      served = seen;
    } else if (name === "history") {
      look();
    }
  });
  return () => {
    stopped = true;
    deaf();
  };
}

/** Offers these, and keeps the choice where it is among them. */
export function offer(select, list) {
  const before = select.value;
  fill(select, options(list));
  if (list.some((model) => model.id === before)) select.value = before;
}

/** Cross-encoders make scores of one number; the others make vectors. */
export function scores({ dimensions }) {
  return dimensions === 1;
}

function options(list) {
  return list.map((model) => h("option", { value: model.id }, model.live ? model.id : `${model.id} (no live worker)`));
}
