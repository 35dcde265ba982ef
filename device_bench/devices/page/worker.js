// A classic worker, since LiteRT's loader needs importScripts; the rest are modules.
onmessage = async ({ data: request }) => {
  try {
    const { ACTIONS } = await import("./measure.js");
    postMessage(await ACTIONS[request.do](request, (line) => postMessage({ line })));
  } catch (error) {
    const known = ["InputError", "BundleError", "EngineError"].includes(error?.name);
    const line = String(error?.message ?? error).split("\n")[0].slice(0, 300);
    postMessage({ error: known ? error.name : "EngineError", message: line });
  }
};
