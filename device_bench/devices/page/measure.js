// What the worker does: the twin of device_bench/{runner,bench,measure}.py. Figures are left to Python.
import { load } from "./web/edgewise.js";

const WARMUP = 20;
const HARNESS = "empty call";
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|softpipe|warp|basic render/i;

const rows = (logits) => logits.map((row) => Array.from(row));

async function open(request, variant, provider) {
  return load(new URL(request.bundle, location.href), { variant, provider, threads: request.threads });
}

/** {vendor, architecture, description, software}, or null where WebGPU has no adapter. */
async function adapter() {
  const found = await navigator.gpu?.requestAdapter();
  if (!found) return null;
  const { vendor, architecture, description, isFallbackAdapter } = found.info;
  const software = Boolean(isFallbackAdapter) || SOFTWARE.test(`${vendor} ${architecture} ${description}`);
  return { vendor, architecture, description, software };
}

/** What each variant makes of the texts, for the gate; variants that do not run here, with the reason. */
async function answers(request, say) {
  const [variants, left] = [{}, {}];
  for (const name of request.variants) {
    say(`answers: ${name}`);
    const model = await openOr(left, name, () => open(request, name, "wasm"));
    if (!model) continue;
    const ids = request.texts.map((text) => unpadded(model.prepare([text])[0]));
    variants[name] = { ids, outputs: rows(await model.logits(request.texts)), ...model.describe() };
    await model.close();
  }
  return { variants, left };
}

function unpadded({ feeds }) {
  return Array.from(feeds.input_ids).filter((_, at) => feeds.attention_mask[at] === 1);
}

/** null, and the reason in `left`, where the engine cannot; a damaged bundle is an error of all. */
async function openOr(left, name, make) {
  try {
    return await make();
  } catch (error) {
    if (error.name !== "EngineError") throw error;
    left[name] = error.message;
    return null;
  }
}

async function bench(request, say) {
  const [entries, left, models] = [{}, {}, {}];
  const gpu = await adapter();
  const wanted = request.variants.map((variant) => [variant, variant, "wasm"]);
  if (gpu) wanted.push(...request.variants.map((variant) => [`${variant} webgpu`, variant, "webgpu"]));
  for (const [name, variant, provider] of wanted) {
    say(`bench: opening ${name}`);
    const untimed = provider === "webgpu" && gpu.software;
    const found = await openOr(left, name, () => judged(request, variant, provider));
    if (!found) continue;
    entries[name] = { ...found.told, variant, provider, untimed };
    if (untimed) await found.model.close();
    else models[name] = found.model;
  }
  say("bench: rounds");
  const timed = Object.keys(models).length ? await time(request, models) : null;
  return { entries, left, timed, gpu };
}

async function judged(request, variant, provider) {
  const model = await open(request, variant, provider);
  const golden = rows(await model.logits(request.golden));
  const labelled = request.labelled ? rows(await model.logits(request.labelled)) : null;
  if (![golden, labelled ?? []].flat(2).every(Number.isFinite)) {
    await model.close();
    const error = new Error("logits are not finite here; the variant is broken on this engine");
    error.name = "EngineError";
    throw error;
  }
  return { model, told: { about: model.describe(), golden, labelled } };
}

async function time(request, models) {
  const calls = {};
  for (const [name, model] of Object.entries(models)) {
    const prepared = request.timed.map((text) => model.prepare([text]));
    if (request.tokenization.includes(true)) {
      calls[`${name} with tokenization`] = (at) => model.classify(request.timed[at]);
    }
    if (request.tokenization.includes(false)) calls[`${name} without tokenization`] = (at) => model.run(prepared[at]);
  }
  const seconds = request.seconds * Object.keys(calls).length;
  calls[HARNESS] = async () => null;
  return interleave(calls, request.timed.length, request.rounds, seconds, request.seed);
}

/**
 * Each call once a round, in an order drawn anew. Where the clock's step is over 1% of a call, that call is
 * made `batch` times in a row between two looks at the clock, and the sample is their mean.
 */
async function interleave(calls, inputs, rounds, seconds, seed) {
  const names = Object.keys(calls);
  const random = mulberry32(seed);
  const step = clockStep();
  const batch = await warmUp(calls, inputs, (seconds * 1000) / 10, step);
  const samples = Object.fromEntries(names.map((name) => [name, []]));
  const start = performance.now();
  for (let round = 0; round < rounds; round++) {
    if (round && performance.now() - start > seconds * 1000) break;
    for (const name of shuffled(names, random)) {
      samples[name].push(await once(name, calls[name], round % inputs, batch[name]));
    }
  }
  return { samples, batch, clock_step_ms: step };
}

async function once(name, call, at, times) {
  try {
    const before = performance.now();
    for (let time = 0; time < times; time++) await call(at);
    return (performance.now() - before) / times;
  } catch (error) {
    error.message = `${name}: ${error.message}`;
    throw error;
  }
}

/** Calls in a row for each name, from the median of the warm-up. */
async function warmUp(calls, inputs, limit, step) {
  const taken = Object.fromEntries(Object.keys(calls).map((name) => [name, []]));
  const start = performance.now();
  for (let turn = 0; turn < WARMUP; turn++) {
    for (const [name, call] of Object.entries(calls)) taken[name].push(await once(name, call, turn % inputs, 1));
    if (performance.now() - start > limit) break;
  }
  const batch = {};
  for (const [name, times] of Object.entries(taken)) {
    const median = times.sort((a, b) => a - b)[times.length >> 1];
    batch[name] = Math.min(1000, Math.max(1, Math.ceil((100 * step) / Math.max(median, step / 10))));
  }
  return batch;
}

/** The smallest step that performance.now() was seen to make, in ms. */
function clockStep() {
  let step = Infinity;
  for (let look = 0; look < 50; look++) {
    const before = performance.now();
    let now = before;
    while (now === before) now = performance.now();
    step = Math.min(step, now - before);
  }
  return step;
}

function shuffled(names, random) {
  const order = [...names];
  for (let at = order.length - 1; at > 0; at--) {
    const other = Math.floor(random() * (at + 1));
    [order[at], order[other]] = [order[other], order[at]];
  }
  return order;
}

// Source: Tommy Ettinger's mulberry32, a 32-bit generator that passes gjrand's tests; public domain.
function mulberry32(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

/** Answers once; and again, when the texts of the memory figure are answered too. */
async function cold(request) {
  const model = await open(request, request.variant, request.provider);
  await model.classify(request.cold[0]);
  postMessage({ first: true });
  for (const text of request.cold.slice(1)) await model.classify(text);
  return { rest: true };
}

export const ACTIONS = { adapter, answers, bench, cold };
