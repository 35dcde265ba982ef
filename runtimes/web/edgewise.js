// edgewise in a browser: a bundle becomes something that answers.
//
//   import { load } from "./edgewise.js";
//   const model = await load("./news.bundle/");
//   const { label, score, scores } = await model.classify("grain exports rise");
//
// The packages onnxruntime-web, @litertjs/core and @huggingface/tokenizers lie in engines/ beside this file,
// as edgewise puts them there (docs/devices.md); nothing is fetched from anywhere else.
import { open as openSession } from "./engines.js";
import { bundleError, engineError, firstLine, inputError } from "./errors.js";
import { head, Tokenizer } from "./text.js";

export { clean } from "./text.js";

const SCHEMA = 1;
const MAX_MANIFEST_BYTES = 4 << 20;
const MAX_BYTES = 4 * 2 ** 30;
const ROWS = 32; // of one engine call, as in runtimes/tasks/classify.py
const NAME = /^[A-Za-z0-9_.@+-]+(\/[A-Za-z0-9_.@+-]+)*$/;

/**
 * Opens the bundle folder at `baseUrl`. Without `variant` or `engine` ("onnx", "litert") the bundle's default
 * is taken. `threads` above 1 need a cross-origin isolated page. `provider`: "wasm" or "webgpu". `engines`:
 * the folder of the packages. Every file's size and sha256 is checked against bundle.json.
 * Throws errors with the names of runtimes/errors.py: BundleError, EngineError.
 */
export async function load(baseUrl, { variant, engine, threads = 1, provider = "wasm", engines } = {}) {
  if (!Number.isInteger(threads) || threads < 1 || threads > 1024) {
    throw engineError(`threads must be between 1 and 1024, not ${threads}`);
  }
  const base = folder(baseUrl, globalThis.location?.href);
  const packages = folder(engines ?? "engines/", import.meta.url);
  const manifest = await readManifest(base);
  const name = choose(manifest, variant, engine);
  const about = manifest.variants[name];
  const [json, bytes, huggingface] = await Promise.all([
    readListed(base, manifest, "tokenizer.json"),
    readListed(base, manifest, about.file),
    tokenizers(packages),
  ]);
  const tokenizer = new Tokenizer(huggingface, parsed("tokenizer.json", json), manifest.limits.max_tokens);
  const session = await openSession(bytes, about, { engines: packages, threads, provider });
  const described = { bundle: manifest.name, task: manifest.task, variant: name, precision: about.precision };
  return new Classifier(session, tokenizer, manifest, described);
}

function folder(url, from) {
  const found = new URL(url, from);
  if (!found.pathname.endsWith("/")) found.pathname += "/";
  return found;
}

async function tokenizers(packages) {
  const file = new URL("@huggingface/tokenizers/dist/tokenizers.min.mjs", packages);
  try {
    return await import(file);
  } catch (error) {
    throw engineError(`@huggingface/tokenizers is not at ${packages} (${firstLine(error)}); put the package there`);
  }
}

/** bundle.json, with what is used of it checked. Its own sha256 is left to Python: that is over Python's JSON. */
export async function readManifest(base) {
  const manifest = parsed("bundle.json", await fetched(new URL("bundle.json", base), MAX_MANIFEST_BYTES));
  if (!Number.isInteger(manifest?.schema) || manifest.schema < 1) {
    throw bundleError(`${base}: bundle.json has no schema version; pack the bundle again`);
  }
  if (manifest.schema > SCHEMA) {
    throw bundleError(`${base}: schema ${manifest.schema} is newer than ${SCHEMA}; upgrade edgewise`);
  }
  const objects = ["limits", "variants", "defaults", "files"].every((key) => manifest[key]?.constructor === Object);
  const limits = objects && ["max_tokens", "max_chars"].every((key) => manifest.limits[key] > 0);
  if (!limits || !Array.isArray(manifest.labels) || typeof manifest.task !== "string") {
    throw bundleError(`${base}: bundle.json is not whole; pack the bundle again`);
  }
  if (manifest.task !== "text-classification") {
    throw bundleError(`${base}: task ${manifest.task} is not known to edgewise in a browser`);
  }
  return manifest;
}

function choose({ variants, defaults }, variant, engine) {
  const have = Object.keys(variants).join(", ");
  if (variant !== undefined) {
    if (!Object.hasOwn(variants, variant)) throw engineError(`no variant '${variant}'; it has ${have}`);
    const its = variants[variant].engine;
    if (![undefined, its].includes(engine)) throw engineError(`variant '${variant}' runs on ${its}, not ${engine}`);
    return variant;
  }
  if (engine !== undefined) {
    if (!Object.hasOwn(defaults, engine)) throw engineError(`no variant for engine '${engine}'; it has ${have}`);
    return defaults[engine];
  }
  const found = Object.values(defaults).find((name) => ["onnx", "litert"].includes(variants[name]?.engine));
  if (found === undefined) throw engineError(`no variant that runs in a browser; it has ${have}`);
  return found;
}

/** A file that bundle.json lists, of the size and sha256 that stand there. */
async function readListed(base, manifest, name) {
  const entry = Object.hasOwn(manifest.files, name) ? manifest.files[name] : null;
  const plain = NAME.test(name) && !name.split("/").some((part) => part === "." || part === "..");
  if (!entry || !plain) throw bundleError(`${base}: ${name} is not in the bundle; pack it again`);
  const bytes = await fetched(new URL(name, base), Math.min(entry.bytes, MAX_BYTES));
  if (bytes.length !== entry.bytes) {
    throw bundleError(`${base}: ${name} has ${bytes.length} bytes, not ${entry.bytes}; copy the bundle again`);
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (hex !== entry.sha256) throw bundleError(`${base}: ${name} was altered (sha256 differs); copy the bundle again`);
  return bytes;
}

/** The bytes at a URL, at most `most` of them. */
async function fetched(url, most) {
  let answer;
  try {
    answer = await fetch(url);
  } catch (error) {
    throw bundleError(`${url}: ${firstLine(error)}; is the page's server still there?`);
  }
  if (!answer.ok) throw bundleError(`${url}: HTTP ${answer.status}; copy the bundle again`);
  const parts = [];
  let size = 0;
  for (const reader = answer.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    if ((size += value.length) > most) {
      await reader.cancel();
      throw bundleError(`${url}: larger than ${most} bytes; copy the bundle again`);
    }
  }
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

function parsed(name, bytes) {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw bundleError(`${name} is not JSON (${firstLine(error)}); copy the bundle again`);
  }
}

/** A text classifier on any engine: the twin of runtimes/tasks/classify.py. */
export class Classifier {
  constructor(session, tokenizer, { labels, limits }, about) {
    Object.assign(this, { session, tokenizer, labels, limits, about });
  }

  /** {label, score, scores}: the best label, its probability, and those of all labels, best first. */
  async classify(text) {
    const [row] = await this.logits([text]);
    const shares = softmax(row);
    const order = [...shares.keys()].sort((a, b) => shares[b] - shares[a]);
    const scores = Object.fromEntries(order.map((index) => [this.labels[index], shares[index]]));
    return { label: this.labels[order[0]], score: shares[order[0]], scores };
  }

  /** One Float32Array of logits a text. */
  async logits(texts) {
    return this.run(this.prepare(texts));
  }

  /** Clean, tokenize, sort by length and pad each batch to its own longest text (or to a length of the graph). */
  prepare(texts) {
    if (!Array.isArray(texts) || !texts.every((text) => typeof text === "string")) {
      throw inputError("a list of texts is expected");
    }
    const ids = texts.map((text) => this.tokenizer.encode(head(text, this.limits.max_chars)));
    const empty = ids.findIndex((tokens) => tokens.length <= this.tokenizer.specialTokens);
    if (empty >= 0) throw inputError(`text ${empty + 1} of ${texts.length} is empty; give at least one word`);
    return [...batches(ids, this.session.lengths, this.tokenizer.padId)];
  }

  /** Logits of prepared batches, in the order of the texts. */
  async run(prepared) {
    const logits = [];
    const width = this.labels.length;
    for (const { rows, length, feeds } of prepared) {
      const answer = await this.session.run(feeds, rows.length, length);
      if (answer.length !== rows.length * width) {
        throw engineError(`the graph gives ${answer.length} logits for ${rows.length} texts of ${width} labels`);
      }
      rows.forEach((row, at) => (logits[row] = answer.slice(at * width, (at + 1) * width)));
    }
    return logits;
  }

  /** bundle, task, variant, precision, engine, engine_version, threads, providers really used. */
  describe() {
    return { ...this.about, ...this.session.describe() };
  }

  /** Frees the engine's memory. */
  async close() {
    await this.session.close();
  }
}

function* batches(ids, lengths, padId) {
  const byLength = [...ids.keys()].sort((a, b) => ids[a].length - ids[b].length);
  if (lengths) {
    for (const row of byLength) {
      const length = lengths.find((one) => one >= ids[row].length) ?? lengths.at(-1);
      yield padded([row], ids, length, padId);
    }
    return;
  }
  for (let start = 0; start < byLength.length; start += ROWS) {
    const rows = byLength.slice(start, start + ROWS);
    yield padded(rows, ids, ids[rows.at(-1)].length, padId);
  }
}

function padded(rows, ids, length, padId) {
  const size = rows.length * length;
  const feeds = {
    input_ids: new Int32Array(size).fill(padId),
    attention_mask: new Int32Array(size),
    token_type_ids: new Int32Array(size),
  };
  rows.forEach((row, at) => {
    const tokens = ids[row].slice(0, length);
    feeds.input_ids.set(tokens, at * length);
    feeds.attention_mask.fill(1, at * length, at * length + tokens.length);
  });
  return { rows, length, feeds };
}

/** Probabilities in 64-bit floats, the same on every engine. */
export function softmax(logits) {
  const top = Math.max(...logits);
  const shifted = Array.from(logits, (logit) => Math.exp(logit - top));
  const sum = shifted.reduce((a, b) => a + b, 0);
  return shifted.map((share) => share / sum);
}
