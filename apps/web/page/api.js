// Talks to the service this page came from.

let key = "";

export class Failure extends Error {
  constructor(message, status = 0, retry = 0) {
    super(message);
    this.status = status;
    this.retry = retry; // seconds after which it may be tried again
  }
}

export function useKey(value) {
  key = value.trim();
}

export async function health() {
  return read(await reach("/health", {}));
}

// One answer for a text, with its explanation where asked for.
export function classify(text, { explain = false, signal } = {}) {
  return post({ text, explain }, signal);
}

export function classifyAll(texts, signal) {
  return post({ texts }, signal);
}

async function post(request, signal) {
  const headers = { "Content-Type": "application/json" };
  if (key) headers.Authorization = `Bearer ${key}`;
  const began = performance.now();
  const reply = await read(await reach("/classify", {
    method: "POST", headers, body: JSON.stringify(request), signal,
  }));
  reply.roundTrip = performance.now() - began;
  return reply;
}

async function reach(path, options) {
  try {
    return await fetch(path, { ...options, credentials: "omit", cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    // A key with characters that no header can hold fails before anything is sent.
    if (error instanceof TypeError && /header|ISO-8859/i.test(error.message)) {
      throw new Failure("The API key holds characters that cannot be sent; paste it again.", 401);
    }
    throw new Failure("The service does not answer; is it still running?");
  }
}

async function read(response) {
  let reply = null;
  try {
    reply = await response.json();
  } catch {
    throw new Failure(`The service answered with something else than JSON (status ${response.status}).`);
  }
  if (response.ok) return reply;
  if (response.status === 401) throw new Failure("The API key is not the right one.", 401);
  const retry = Number(response.headers.get("Retry-After")) || 0;
  throw new Failure(sentence(reply?.error ?? `status ${response.status}`), response.status, retry);
}

function sentence(line) {
  const text = String(line);
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}
