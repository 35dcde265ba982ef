// The page: first everything is kept for offline use, then a worker loads the model and answers.
const EXAMPLES = [
  ["Markets", "Shares in the chip maker jumped 12 percent after it raised its profit forecast and announced a $5 billion buyback."],
  ["Match", "The visitors came from two goals down to win the derby in stoppage time, and their coach was sent off while celebrating."],
  ["Space", "Engineers have restored contact with the probe, which carries a new instrument to map ice below the surface of the moon."],
  ["Summit", "Foreign ministers agreed to extend the ceasefire by a month and to let aid convoys cross the border."],
];
const CLAIM_MS = 3000;

const by = (id) => document.getElementById(id);
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;

let worker;
let asked = 0;

function tell(text, state = "") {
  by("state-text").textContent = text;
  by("state").className = `state ${state}`;
}

function complain(message) {
  by("message").textContent = message;
  by("message").hidden = !message;
}

/** Whether all files are kept for offline use. Throws where they could not be fetched whole. */
async function keepOffline() {
  if (!navigator.serviceWorker) return false;
  navigator.serviceWorker.addEventListener("message", ({ data }) => drawFetched(data));
  const registration = await navigator.serviceWorker.register("sw.js");
  const fresh = registration.installing;
  if (!registration.active && fresh) {
    await new Promise((resolve, reject) => {
      fresh.addEventListener("statechange", () => {
        if (fresh.state === "activated") resolve();
        if (fresh.state === "redundant") reject(new Error("The files could not be fetched whole. Load the page again."));
      });
    });
  }
  await navigator.serviceWorker.ready;
  if (!navigator.serviceWorker.controller) {
    const claimed = new Promise((resolve) => navigator.serviceWorker.addEventListener("controllerchange", resolve));
    await Promise.race([claimed, new Promise((resolve) => setTimeout(resolve, CLAIM_MS))]);
  }
  return true;
}

function drawFetched({ done, total }) {
  by("fetching").hidden = done >= total;
  by("progress").value = done / total;
  by("fetching-text").textContent = `Fetching the model: ${megabytes(done)} of ${megabytes(total)}`;
  tell("fetching");
}

function startWorker(offline) {
  worker = new Worker("worker.js");
  worker.onmessage = ({ data }) => {
    if (data.ready) ready(data.ready, offline);
    else if (data.id === asked) answered(data);
    else if (data.failed) fail(data.failed);
  };
  worker.onerror = (event) => fail(event.message || "the worker did not start");
  tell("loading the model");
  worker.postMessage({ load: true });
}

function ready(about, offline) {
  tell(offline ? "ready, offline too" : "ready", "ready");
  const engine = `${about.engine} ${about.engine_version}`;
  by("about").textContent =
    `${about.bundle}: ${about.variant} on ${engine}, ${about.threads} thread, loaded in ${about.load_ms.toFixed(0)} ms. ` +
    "Nothing that you type is stored or sent.";
  by("go").disabled = false;
}

function fail(message) {
  by("fetching").hidden = true;
  tell("not ready", "failed");
  complain(message);
}

function submit() {
  if (by("go").disabled) return;
  if (!by("text").value.trim()) {
    complain("The text is empty. Write or paste something.");
    by("text").focus();
    return;
  }
  complain("");
  by("result").setAttribute("aria-busy", "true");
  worker.postMessage({ id: ++asked, text: by("text").value });
}

function answered({ error, answer, ms, about }) {
  by("result").removeAttribute("aria-busy");
  if (error) {
    complain(error);
    by("answer").hidden = true;
    by("empty").hidden = false;
    return;
  }
  by("empty").hidden = true;
  by("answer").hidden = false;
  by("label").textContent = answer.label;
  by("bars").replaceChildren(...Object.entries(answer.scores).map(bar));
  by("timing").textContent =
    `Answered in ${ms < 10 ? ms.toFixed(1) : ms.toFixed(0)} ms in this tab, by ${about.variant} on ${about.engine}` +
    " (this one text, tokenization included).";
  const rect = by("result").getBoundingClientRect();
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (rect.bottom > innerHeight) by("result").scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "nearest" });
}

function bar([label, share]) {
  const item = document.createElement("li");
  const parts = [["name", label], ["share", `${(share * 100).toFixed(1)} %`], ["track", ""]];
  for (const [kind, text] of parts) {
    const part = document.createElement("span");
    part.className = kind;
    part.textContent = text;
    item.append(part);
  }
  const fill = document.createElement("span");
  fill.className = "bar";
  fill.style.width = `${Math.max(share * 100, 0.5)}%`;
  item.lastChild.append(fill);
  item.lastChild.setAttribute("aria-hidden", "true");
  return item;
}

function drawExamples() {
  for (const [name, text] of EXAMPLES) {
    const chip = document.createElement("button");
    chip.type = "button";
    chip.className = "chip";
    chip.textContent = name;
    chip.addEventListener("click", () => {
      by("text").value = text;
      submit();
    });
    by("examples").append(chip);
  }
}

function offerInstall() {
  addEventListener("beforeinstallprompt", (event) => {
    event.preventDefault();
    by("install").hidden = false;
    by("install").onclick = () => event.prompt();
  });
  addEventListener("appinstalled", () => (by("install").hidden = true));
}

by("form").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
by("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit();
});
drawExamples();
offerInstall();
keepOffline().then(startWorker).catch((error) => fail(error.message));
