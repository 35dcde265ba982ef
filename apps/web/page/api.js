// What this service can be asked.

import { talk } from "./talk.js";

export { Failure, useKey } from "./talk.js";

export function health() {
  return talk("/health");
}

// One answer for a text, with its explanation where asked for.
export function classify(text, { explain = false, signal } = {}) {
  return post({ text, explain }, signal);
}

export function classifyAll(texts, signal) {
  return post({ texts }, signal);
}

async function post(value, signal) {
  const began = performance.now();
  const reply = await talk("/classify", { method: "POST", value, signal });
  reply.roundTrip = performance.now() - began;
  return reply;
}
