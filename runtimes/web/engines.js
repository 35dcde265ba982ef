// What runs a variant in a browser: onnxruntime-web and @litertjs/core. The twin of runtimes/engines/.
import { engineError, firstLine } from "./errors.js";

export const PACKAGES = { onnx: "onnxruntime-web", litert: "@litertjs/core" };
const ORT_PROVIDERS = ["wasm", "webgpu"];

/**
 * Opens a variant. `how`: {engines: folder of the packages, threads, provider ("wasm" or "webgpu")}.
 * A session has `lengths` (null: free), `run(feeds, rows, length)` → Float32Array, `describe()`, `close()`.
 * Throws EngineError where the engine cannot open the graph, or does not run it as it was asked to.
 */
export async function open(bytes, variant, how) {
  if (how.threads > 1 && !globalThis.crossOriginIsolated) {
    throw engineError(
      `${how.threads} threads: this page is not cross-origin isolated, so there is only one; ` +
        "serve it with COOP same-origin and COEP require-corp",
    );
  }
  if (!ORT_PROVIDERS.includes(how.provider)) throw engineError(`provider ${how.provider}: known are wasm and webgpu`);
  const kinds = { onnx: OnnxSession, litert: LiteRTSession };
  if (!Object.hasOwn(kinds, variant.engine)) throw engineError(`engine '${variant.engine}' does not run in a browser`);
  const version = await packageVersion(how.engines, PACKAGES[variant.engine]);
  try {
    return await kinds[variant.engine].open(bytes, variant, { ...how, version });
  } catch (error) {
    if (error.name === "EngineError") throw error;
    throw engineError(`${PACKAGES[variant.engine]} cannot open ${variant.file}: ${firstLine(error)}`);
  }
}

/** The version that a package's own package.json tells. Throws EngineError where it is not served. */
export async function packageVersion(engines, name) {
  try {
    const answer = await fetch(new URL(`${name}/package.json`, engines));
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    return (await answer.json()).version;
  } catch (error) {
    throw engineError(`${name} is not at ${engines} (${firstLine(error)}); put the package there`);
  }
}

/** An ONNX graph: with free batch and length, or with fixed `lengths` at batch 1. */
class OnnxSession {
  static async open(bytes, variant, how) {
    const file = how.provider === "webgpu" ? "ort.webgpu.min.mjs" : "ort.wasm.min.mjs";
    const folder = new URL(`${PACKAGES.onnx}/dist/`, how.engines);
    const ort = await import(new URL(file, folder));
    ort.env.wasm.wasmPaths = folder.href;
    ort.env.wasm.numThreads = how.threads;
    ort.env.logLevel = "error";
    const options = { executionProviders: [how.provider], logSeverityLevel: 4 };
    const session = await ort.InferenceSession.create(bytes, options);
    if (ort.env.wasm.numThreads !== how.threads) {
      throw engineError(`${PACKAGES.onnx} took ${ort.env.wasm.numThreads} threads here, not ${how.threads}`);
    }
    return new OnnxSession(ort, session, variant, how);
  }

  constructor(ort, session, variant, how) {
    this.ort = ort;
    this.session = session;
    this.how = how;
    this.lengths = variant.lengths ? [...variant.lengths].sort((a, b) => a - b) : null;
    this.inputs = session.inputMetadata.map((input) => [input.name, input.type]);
  }

  async run(feeds, rows, length) {
    try {
      const given = {};
      for (const [name, type] of this.inputs) given[name] = this.tensor(type, feeds[name], [rows, length]);
      const { logits } = await this.session.run(given);
      const data = new Float32Array(await logits.getData());
      logits.dispose();
      return data;
    } catch (error) {
      throw engineError(`${PACKAGES.onnx} cannot run the graph: ${firstLine(error)}`);
    }
  }

  tensor(type, values, shape) {
    return new this.ort.Tensor(type, type === "int64" ? BigInt64Array.from(values, BigInt) : values, shape);
  }

  describe() {
    const { version, threads, provider } = this.how;
    return { engine: PACKAGES.onnx, engine_version: version, threads, providers: [provider] };
  }

  async close() {
    await this.session.release();
  }
}

let litert; // one a page or worker: {module, threads}

async function loadLiteRT(how) {
  const threads = how.threads > 1;
  if (litert && litert.threads !== threads) {
    throw engineError("LiteRT is loaded in this page with another number of threads; load the page again");
  }
  litert ??= { threads, module: startLiteRT(how.engines, threads) };
  return litert.module;
}

async function startLiteRT(engines, threads) {
  const folder = new URL(`${PACKAGES.litert}/wasm/`, engines);
  const module = await import(new URL(`${PACKAGES.litert}/dist/index.js`, engines));
  // In a worker its loader takes the worker's own address for that of its scripts.
  globalThis.Module = { locateFile: (name) => new URL(name, folder).href };
  if (threads) globalThis.Module.mainScriptUrlOrBlob = new URL("litert_wasm_threaded_internal.js", folder).href;
  await module.loadLiteRt(folder.href, { threads });
  return module;
}

/** A .tflite with one signature per input length (batch 1), sharing their weights. */
class LiteRTSession {
  static async open(bytes, variant, how) {
    const module = await loadLiteRT(how);
    const options = { accelerator: how.provider, cpuOptions: { numThreads: how.threads } };
    const model = await module.loadAndCompile(bytes, options);
    if (how.provider === "webgpu" && !model.isFullyAccelerated) {
      model.delete();
      throw engineError(`${PACKAGES.litert} does not run all of ${variant.file} on webgpu`);
    }
    return new LiteRTSession(module, model, variant, how);
  }

  constructor(module, model, variant, how) {
    this.module = module;
    this.model = model;
    this.variant = variant;
    this.how = how;
    this.lengths = Object.keys(variant.signatures).map(Number).sort((a, b) => a - b);
  }

  async run(feeds, rows, length) {
    try {
      const runner = this.model.signatures[this.variant.signatures[length]];
      const answers = [];
      for (let row = 0; row < rows; row++) answers.push(await this.row(runner, feeds, row, length));
      return Float32Array.from(answers.flatMap((answer) => [...answer]));
    } catch (error) {
      throw engineError(`${PACKAGES.litert} cannot run the graph: ${firstLine(error)}`);
    }
  }

  async row(runner, feeds, row, length) {
    const inputs = {};
    const tensors = []; // its memory is freed by hand
    try {
      for (const [name, ours] of Object.entries(this.variant.inputs)) {
        const values = feeds[ours].subarray(row * length, (row + 1) * length);
        tensors.push((inputs[name] = new this.module.Tensor(values, [1, length])));
      }
      const found = Object.values(await runner.run(inputs));
      tensors.push(...found);
      if (this.how.provider === "wasm") return found[0].toTypedArray().slice();
      const here = await found[0].copyTo(this.module.TensorBufferType.HOST_MEMORY);
      tensors.push(here);
      return here.toTypedArray().slice();
    } finally {
      for (const tensor of tensors) tensor.delete();
    }
  }

  describe() {
    const { version, threads, provider } = this.how;
    return { engine: PACKAGES.litert, engine_version: version, threads, providers: [provider] };
  }

  async close() {
    this.model.delete();
  }
}
