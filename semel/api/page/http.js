// The API: JSON, uploads and streams of events, all with the same key.

const ROOT = new URL("../", import.meta.url);
const KEY = "semel-key";

class ApiError extends Error {
  constructor(status, message, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export function hasKey() {
  return sessionStorage.getItem(KEY) !== null;
}

/** Kept until the tab is closed. */
export function keepKey(key) {
  sessionStorage.setItem(KEY, key);
}

export function forgetKey() {
  sessionStorage.removeItem(KEY);
}

function address(path) {
  return new URL(path, ROOT).href;
}

function headers(more = {}) {
  return hasKey() ? { ...more, authorization: `Bearer ${sessionStorage.getItem(KEY)}` } : more;
}

async function call(path, options = {}) {
  let answer;
  try {
    answer = await fetch(address(path), { ...options, headers: headers(options.headers) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "the server does not answer", "unreachable");
  }
  if (!answer.ok) throw refusal(answer.status, await answer.text(), options);
  return answer;
}

/** @param byItself whether nobody asked for this: the stream, which tries again and again. */
function refusal(status, body, { byItself = false } = {}) {
  let told = null;
  try {
    const said = JSON.parse(body);
    told = said.error ?? said; // Cohere's shape is flat
  } catch {
    // not semel's: something between here and the server
  }
  const message = told?.message ?? `the server answered ${status}`;
  if (status === 401) document.dispatchEvent(new CustomEvent("semel:key", { detail: { message, byItself } }));
  return new ApiError(status, message, told?.code ?? "unknown");
}

export async function get(path, options) {
  return (await call(path, options)).json();
}

export async function post(path, body = {}) {
  const answer = await call(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  return answer.json();
}

export async function remove(path) {
  await call(path, { method: "DELETE" });
}

/**
 * Sends a form with a file. fetch cannot tell how much of it has gone.
 * @param onProgress is told a share from 0 to 1.
 * @param more headers.
 */
export function upload(path, form, { onProgress = () => {}, signal, more = {} } = {}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", address(path));
    for (const [name, value] of Object.entries(headers(more))) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", (event) => event.total && onProgress(event.loaded / event.total));
    request.addEventListener("load", () => {
      if (request.status >= 300) return reject(refusal(request.status, request.responseText));
      try {
        resolve(JSON.parse(request.responseText));
      } catch {
        reject(new ApiError(request.status, "what came back is no answer of semel", "unknown"));
      }
    });
    request.addEventListener("error", () => reject(new ApiError(0, "the server does not answer, or the file changed since it was chosen", "unreachable")));
    request.addEventListener("abort", () => reject(new DOMException("", "AbortError")));
    signal?.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

/** Downloads a file. Without a key the browser streams it to disk; a link cannot carry one. */
export async function download(path, name) {
  const link = document.createElement("a");
  link.download = name;
  if (hasKey()) {
    link.href = URL.createObjectURL(await (await call(path)).blob());
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  } else {
    link.href = address(path);
  }
  link.click();
}

/**
 * Server-sent events, one after the other as {name, data}; a sign of life has no name. EventSource cannot send a key,
 * so they are read off fetch.
 */
export async function* events(path, options) {
  const answer = await call(path, options);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      yield* blocks.map(parsed);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parsed(block) {
  let name = "";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) name = line.slice(7);
    else if (line.startsWith("data: ")) data.push(line.slice(6));
  }
  return { name, data: data.length ? JSON.parse(data.join("\n")) : null };
}
