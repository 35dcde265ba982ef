// The runner in a browser: takes requests from the server that served this page, and answers them.
const PAGE = crypto.randomUUID();
const BEAT_MS = 2000;
const MEMORY_MS = 15000;
const state = document.querySelector("#state");
let number = 0;

function call(name, body) {
  const url = `${name}?page=${PAGE}`;
  return body ? fetch(url, { method: "POST", body: JSON.stringify(body) }) : fetch(url);
}

function say(line) {
  const item = document.createElement("li");
  item.textContent = line;
  document.querySelector("#lines").append(item);
  return call("beat", { line }).catch(() => null);
}

/** What a worker answers to a request, its lines said; the worker is gone afterwards. */
function inWorker(request) {
  const worker = new Worker("worker.js");
  return new Promise((resolve) => {
    worker.onmessage = ({ data }) => (data.line ? say(data.line) : resolve(data));
    worker.onerror = (event) => resolve({ error: "EngineError", message: event.message || "the worker did not start" });
    worker.postMessage(request);
  }).finally(() => worker.terminate());
}

async function describe() {
  const agent = navigator.userAgentData;
  const told = (await agent?.getHighEntropyValues(["fullVersionList", "platformVersion", "model"])) ?? {};
  const adapter = await navigator.gpu?.requestAdapter();
  return {
    brands: told.fullVersionList ?? [],
    agent: navigator.userAgent,
    platform: told.platform ?? null,
    platform_version: told.platformVersion ?? null,
    model: told.model || null,
    cores: navigator.hardwareConcurrency ?? null,
    memory_gb: navigator.deviceMemory ?? null,
    isolated: crossOriginIsolated,
    webgpu: adapter ? await inWorker({ do: "adapter" }) : null,
  };
}

async function bench(request) {
  const measured = await inWorker(request);
  if (measured.error) return measured;
  const colds = {};
  for (const [name, { variant, provider, untimed }] of Object.entries(measured.entries)) {
    if (untimed) continue;
    await say(`bench: cold start of ${name}`);
    colds[name] = [];
    for (let time = 0; time < request.cold_starts; time++) {
      const found = await coldStart({ ...request, do: "cold", variant, provider });
      if (found.error) return { ...found, message: `${name}: ${found.message}` };
      colds[name].push(found);
    }
  }
  return { ...measured, colds };
}

/** {ms, memory_bytes or null, memory_note}: from the start of a page load to its first answer. */
async function coldStart(request) {
  globalThis.coldRequest = request;
  const frame = document.createElement("iframe");
  frame.title = "cold start";
  frame.hidden = true;
  frame.src = "cold.html";
  const start = performance.now();
  const waits = inbox(frame);
  document.body.append(frame);
  const first = await waits.next();
  const ms = performance.now() - start;
  if (first.error) {
    frame.remove();
    return first;
  }
  const rest = await waits.next();
  const memory = rest.error ? notTold(rest.message) : await memoryOf(request.threads);
  frame.remove();
  return { ms, ...memory };
}

/** Messages of the page in a frame, one after another. */
function inbox(frame) {
  const got = [];
  let wake = () => {};
  const take = ({ data, source }) => {
    if (!frame.isConnected) removeEventListener("message", take);
    if (source === frame.contentWindow && data.cold && !data.cold.line) got.push(data.cold);
    wake();
  };
  addEventListener("message", take);
  return {
    async next() {
      while (!got.length) await new Promise((resolve) => (wake = resolve));
      return got.shift();
    },
  };
}

const notTold = (memory_note) => ({ memory_bytes: null, memory_note });

/** The memory of the cold page and its worker, where the browser tells it. */
async function memoryOf(threads) {
  if (!performance.measureUserAgentSpecificMemory) return notTold("this browser does not tell a page's memory");
  if (threads > 1) return notTold("browsers do not tell it while an engine's threads wait");
  const late = new Promise((resolve) => setTimeout(resolve, MEMORY_MS, null));
  try {
    const told = await Promise.race([performance.measureUserAgentSpecificMemory(), late]);
    if (!told) return notTold(`the browser did not tell it within ${MEMORY_MS / 1000} s`);
    const ours = told.breakdown.filter((part) => part.attribution.some((one) => one.url?.includes("cold")));
    return { memory_bytes: ours.reduce((sum, part) => sum + part.bytes, 0), memory_note: null };
  } catch (error) {
    return notTold(`the browser does not tell it (${error.name})`);
  }
}

async function answerTo(request) {
  try {
    if (request.do === "describe") return await describe();
    if (request.do === "bench") return await bench(request);
    return await inWorker(request);
  } catch (error) {
    return { error: "EngineError", message: String(error?.message ?? error) };
  }
}

async function serve() {
  for (;;) {
    const reply = await call("next");
    const request = await reply.json();
    if (request.taken) return (state.textContent = "Another page runs this bench already; close this one.");
    if (request.over) return end();
    state.textContent = "ready";
    if (!request.do) continue;
    number = request.number;
    state.textContent = `running: ${request.do}`;
    await call("answer", { ...(await answerTo(request)), number });
    state.textContent = "done; waiting for more";
  }
}

const beat = setInterval(() => call("beat", { line: "" }).catch(() => null), BEAT_MS);

function end() {
  clearInterval(beat);
  state.textContent = "Done: the bench has ended.";
}

serve().catch(end);
