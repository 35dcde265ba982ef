// A page load of its own, in a frame: a fresh worker that loads one variant and answers.
const worker = new Worker("worker.js?cold");
worker.onmessage = ({ data }) => parent.postMessage({ cold: data }, location.origin);
worker.onerror = (event) => parent.postMessage({ cold: { error: "EngineError", message: event.message } }, location.origin);
worker.postMessage(parent.coldRequest);
