// The API: JSON, uploads and streams of events, all sent with the same key.

const ROOT = new URL("../", import.meta.url);
const KEY = "semel-key";

class ApiError extends Error {
  /** @param status of HTTP; 0 if there was no response. */
  constructor(status, message, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export function hasKey() {
  return sessionStorage.getItem(KEY) !== null;
}

/** Keeps the key until the tab is closed. */
export function keepKey(key) {
  sessionStorage.setItem(KEY, key);
}

export function forgetKey() {
  sessionStorage.removeItem(KEY);
}

function urlOf(path) {
  return new URL(path, ROOT).href;
}

function withKey(headers = {}) {
  return hasKey() ? { ...headers, authorization: `Bearer ${sessionStorage.getItem(KEY)}` } : headers;
}

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(urlOf(path), { ...options, headers: withKey(options.headers) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "the server does not answer", "unreachable");
  }
  if (!response.ok) throw refusal(response.status, await response.text(), options);
  return response;
}

/** @param background whether the page sent the request by itself, and will send it again. */
function refusal(status, body, { background = false } = {}) {
  let reported = null;
  try {
    const payload = JSON.parse(body);
    reported = payload.error ?? payload; // Cohere's shape is flat
  } catch {
    // not from semel: something between here and the server answered
  }
  const message = reported?.message ?? `the server answered ${status}`;
  if (status === 401) document.dispatchEvent(new CustomEvent("semel:key", { detail: { message, background } }));
  return new ApiError(status, message, reported?.code ?? "unknown");
}

export async function get(path, options) {
  return (await request(path, options)).json();
}

export async function post(path, body = {}) {
  const response = await request(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  return response.json();
}

export async function remove(path) {
  await request(path, { method: "DELETE" });
}

/**
 * Sends a form with a file, with XMLHttpRequest because fetch does not report the progress of an upload.
 * @param onProgress is called with the share that was sent, from 0 to 1.
 * @param headers in addition to the key.
 */
export function upload(path, form, { onProgress = () => {}, signal, headers = {} } = {}) {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    xhr.open("POST", urlOf(path));
    for (const [name, value] of Object.entries(withKey(headers))) xhr.setRequestHeader(name, value);
    xhr.upload.addEventListener("progress", (event) => event.total && onProgress(event.loaded / event.total));
    xhr.addEventListener("load", () => settle(xhr, resolve, reject));
    xhr.addEventListener("error", () => {
      reject(new ApiError(0, "the server does not answer, or the file has changed since you chose it", "unreachable"));
    });
    xhr.addEventListener("abort", () => reject(new DOMException("", "AbortError")));
    signal?.addEventListener("abort", () => xhr.abort());
    xhr.send(form);
  });
}

function settle({ status, responseText }, resolve, reject) {
  if (status >= 300) return reject(refusal(status, responseText));
  try {
    resolve(JSON.parse(responseText));
  } catch {
    reject(new ApiError(status, "the answer is not JSON: check the proxy between this page and semel", "unknown"));
  }
}

/** Downloads a file. Without a key the browser streams it to disk; a link cannot carry one. */
export async function download(path, name) {
  const link = document.createElement("a");
  link.download = name;
  if (hasKey()) {
    link.href = URL.createObjectURL(await (await request(path)).blob());
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  } else {
    link.href = urlOf(path);
  }
  link.click();
}

/**
 * Server-sent events in their order, as {name, data}; an event that only keeps the connection alive has no name. They
 * are read from fetch because EventSource cannot send a key.
 */
export async function* events(path, options) {
  const response = await request(path, options);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      yield* blocks.map(parseEvent);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parseEvent(block) {
  let name = "";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) name = line.slice(7);
    else if (line.startsWith("data: ")) data.push(line.slice(6));
  }
  return { name, data: data.length ? JSON.parse(data.join("\n")) : null };
}
