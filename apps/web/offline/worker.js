// A classic worker, since LiteRT's loader needs importScripts; the runtime is a module.
let model;

async function load() {
  const start = performance.now();
  const { load } = await import("./edgewise/edgewise.js");
  model = await load("./model/");
  await model.classify("The first answer sets the engine up."); // so that no reader's text waits for it
  postMessage({ ready: { ...model.describe(), load_ms: performance.now() - start } });
}

async function answer({ id, text }) {
  const start = performance.now();
  const found = await model.classify(text);
  postMessage({ id, answer: found, ms: performance.now() - start, about: model.describe() });
}

onmessage = async ({ data }) => {
  try {
    await (data.load ? load() : answer(data));
  } catch (error) {
    const line = String(error?.message ?? error).split("\n")[0];
    postMessage(data.load ? { failed: line } : { id: data.id, error: line });
  }
};
