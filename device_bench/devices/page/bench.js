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
  for (const [name, { variant, provider }] of Object.entries(measured.entries)) {
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
  const waits = inbox();
  document.body.append(frame);
  const first = await waits.next();
  const ms = performance.now() - start;
  if (first.error) return frame.remove(), first;
  const rest = await waits.next();
  const memory = rest.error ? { memory_bytes: null, memory_note: rest.message } : await memoryOf();
  frame.remove();
  return { ms, ...memory };
}

function inbox() {
  const got = [];
  let wake = () => {};
  addEventListener("message", ({ data, source }) => {
    if (source !== window && data.cold && !data.cold.line) got.push(data.cold), wake();
  });
  return {
    async next() {
      while (!got.length) await new Promise((resolve) => (wake = resolve));
      return got.shift();
    },
  };
}

/** The memory of the cold page and its workers, where the browser tells it. */
async function memoryOf() {
  const none = (memory_note) => ({ memory_bytes: null, memory_note });
  if (!performance.measureUserAgentSpecificMemory) return none("this browser does not tell a page's memory");
  const late = new Promise((resolve) => setTimeout(resolve, MEMORY_MS, null));
  try {
    const told = await Promise.race([performance.measureUserAgentSpecificMemory(), late]);
    if (!told) return none(`the browser did not tell the page's memory within ${MEMORY_MS / 1000} s`);
    const ours = told.breakdown.filter((part) => part.attribution.some((one) => one.url?.includes("cold")));
    const bytes = ours.reduce((sum, part) => sum + part.bytes, 0);
    return bytes ? { memory_bytes: bytes, memory_note: null } : none("the browser does not tell a worker's memory");
  } catch (error) {
    return none(`the browser does not tell the page's memory (${error.name})`);
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
    state.textContent = "ready";
    if (!request.do) continue;
    number = request.number;
    state.textContent = `running: ${request.do}`;
    await call("answer", { ...(await answerTo(request)), number });
    state.textContent = "done; waiting for more";
  }
}

const beat = setInterval(() => call("beat", { line: "" }).catch(() => null), BEAT_MS);
serve().catch(() => {
  clearInterval(beat);
  state.textContent = "Done: the bench has ended.";
});
