// Numbers, sizes and times in the form that people read.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

export function count(n) {
  return whole.format(n);
}

export function plural(n, noun) {
  return `${count(n)} ${noun}${n === 1 ? "" : "s"}`;
}

export function texts(n) {
  return plural(n, "text");
}

export function rate(n) {
  return n >= 100 ? whole.format(n) : short.format(n);
}

export function percent(share) {
  return share === null || Number.isNaN(share) ? "–" : `${(share * 100).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
}

/** The share of look-ups that were hits. */
export function hitRate({ lookups, hits }) {
  return percent(lookups ? hits / lookups : null);
}

/** A share in per cent, rounded down so that 100 % means that nothing is left. */
export function share(part, all) {
  return all ? `${Math.floor((part / all) * 100)} %` : "–";
}

/** How far a job is. Its number of texts is unknown until the upload has ended. */
export function progress(job, done) {
  const { total } = job.counts;
  if (job.status === "validating") return `${count(done)} done, ${count(total)} received`;
  return `${share(done, total)} of ${count(total)}`;
}

export function statusText(status) {
  return status.replace("_", " ");
}

/** The model and prompt of a vector space, with the start of its fingerprint. */
export function spaceName({ model, prompt_name, fingerprint }) {
  return `${prompt_name ? `${model}, ${prompt_name}` : model} (${fingerprint.slice(0, 8)})`;
}

export function bytes(n) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let value = n;
  let step = 0;
  while (value >= 1000 && step < units.length - 1) {
    value /= 1000;
    step += 1;
  }
  return `${step ? short.format(value) : whole.format(value)} ${units[step]}`;
}

export function seconds(s) {
  if (s === null || s === undefined) return "–";
  if (s < 1) return s === 0 ? "0 s" : `${Math.max(1, Math.round(s * 1000))} ms`;
  if (s < 100) return `${short.format(s)} s`;
  if (s < 2 * 3600) return `${Math.round(s / 60)} min`;
  if (s < 48 * 3600) return `${short.format(s / 3600)} h`;
  return `${short.format(s / 86400)} days`;
}

export function milliseconds(ms) {
  return ms === null ? "–" : seconds(ms / 1000);
}

const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });

export function dateTime(unix) {
  return unix === null ? "–" : moment.format(unix * 1000);
}

export function ago(unix) {
  return unix === null ? "never" : `${seconds(Math.max(0, Math.round(Date.now() / 1000 - unix)))} ago`;
}

/** The label of a tick on a time axis that spans `spanS` seconds. */
export function tick(unix, spanS) {
  return (spanS > 2 * 86400 ? day : clock).format(unix * 1000);
}
