// One request to the service this page came from, with the key; errors as sentences.

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

export function keyHeaders() {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

// The reply's JSON. `value`: what to send as JSON.
export async function talk(path, { method = "GET", value, signal } = {}) {
  const options = { method, headers: keyHeaders(), signal };
  if (value !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(value);
  }
  return read(await reach(path, options));
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
  throw failureOf(response.status, reply, response.headers.get("Retry-After"));
}

export function failureOf(status, reply, retryAfter) {
  if (status === 401) return new Failure("The API key is not the right one.", 401);
  return new Failure(sentence(reply?.error ?? `status ${status}`), status, Number(retryAfter) || 0);
}

function sentence(line) {
  const text = String(line);
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}
