// Wires the page: input, file, mode, key, and what happens on Classify.

import { drawAnswer, drawTiming, drawWords, drawWorking, forgetAnswer, hideWords, watchWords } from "./answer.js";
import { classify, health, useKey } from "./api.js";
import { linesOf, runBatch } from "./batch.js";
import { by, count, engineName, make, show, watchDrops } from "./dom.js";

const MOST_FILE_BYTES = 5_000_000;

const EXAMPLES = [
  ["Markets", "Shares in the chip maker jumped 12 percent after it raised its profit forecast and announced a $5 billion buyback."],
  ["Match", "The visitors came from two goals down to win the derby in stoppage time, and their coach was sent off while celebrating."],
  ["Space", "Engineers have restored contact with the probe, which carries a new instrument to map ice below the surface of the moon."],
  ["Summit", "Foreign ministers agreed to extend the ceasefire by a month and to let aid convoys cross the border."],
];

let service = null; // what /health said
let running = null; // the AbortController of the request under way

const text = by("text");
const characters = () => Array.from(text.value).length; // code points, as the service counts
const perLine = () => !by("lines").hidden && by("form").elements.mode.value === "lines";

function say(message) {
  by("message").textContent = message;
  show(by("message"), Boolean(message));
}

function measure() {
  const length = characters();
  const most = service?.limits.max_chars;
  const lines = linesOf(text.value).length;
  show(by("lines"), lines > 1);
  by("lines-text").textContent = `${count(lines)} lines`;
  const over = most !== undefined && length > most && !perLine();
  by("count").textContent = most === undefined ? "" : `${count(length)} / ${count(most)}`;
  by("count").classList.toggle("over", over);
  show(by("clear"), length > 0);
  by("go").firstElementChild.textContent = perLine() ? `Classify ${count(lines)} lines` : "Classify";
}

// Why the text cannot be sent; an empty string where it can.
function fault() {
  if (!text.value.trim()) return "The text is empty. Write or paste something, or open a file.";
  const most = service?.limits.max_chars ?? Infinity;
  if (!perLine()) {
    return characters() > most
      ? `The text has ${count(characters())} characters and ${count(most)} are allowed. Shorten it.` : "";
  }
  const long = linesOf(text.value).find((line) => Array.from(line.text).length > most);
  return long ? `Line ${count(long.number)} is over ${count(most)} characters. Shorten it.` : "";
}

async function submit() {
  const wrong = fault();
  say(wrong);
  if (wrong) {
    forgetAnswer(text.value); // what stands there is of another text
    hideWords();
    text.focus();
    return;
  }
  running?.abort();
  const mine = new AbortController();
  running = mine;
  useKey(by("key").value);
  busy(true);
  try {
    await (perLine() ? askLines(mine.signal) : askOne(mine.signal));
  } catch (failure) {
    if (mine === running) hideWords();
    if (failure.name !== "AbortError") refuse(failure);
    if (mine === running) forgetAnswer(text.value);
  } finally {
    if (mine === running) busy(false);
  }
}

// First the answer, then the slower question of which words decided it.
async function askOne(signal) {
  const asked = text.value;
  const reply = await classify(asked, { signal });
  drawAnswer(asked, reply.answers[0]);
  drawTiming(reply);
  layOut(false);
  bringIntoView(by("answer"));
  drawWorking();
  const explained = await classify(asked, { explain: true, signal });
  drawWords(asked, explained.answers[0].explanation);
}

async function askLines(signal) {
  service ??= await health();
  layOut(true);
  bringIntoView(by("batch"));
  await runBatch(linesOf(text.value), service.limits, service.labels, signal);
}

// Many lines take the whole width; one text has its answer beside it.
function layOut(many) {
  by("columns").classList.toggle("wide", many);
  show(by("results"), !many);
  show(by("batch"), many);
}

// On a phone the answer stands below the fold.
function bringIntoView(element) {
  if (element.getBoundingClientRect().top < innerHeight - 120) return;
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  element.scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
}

function refuse(failure) {
  say(failure.message);
  if (failure.status === 401) {
    if (!by("key").value.trim()) say("This service asks for its API key. Enter it above and try again.");
    show(by("key-row"), true);
    by("key").focus();
  }
}

function busy(on) {
  by("results").setAttribute("aria-busy", String(on));
  by("go").classList.toggle("busy", on);
}

async function openFile(file) {
  if (!file) return;
  if (file.size > MOST_FILE_BYTES) {
    say(`“${file.name}” has ${count(file.size)} bytes and ${count(MOST_FILE_BYTES)} are allowed. Split it.`);
    return;
  }
  let content = "";
  try {
    content = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
  } catch {
    say(`“${file.name}” is not text in UTF-8. Save it as UTF-8 text and try again.`);
    return;
  }
  if (content.includes("\0")) {
    say(`“${file.name}” is not a text file.`);
    return;
  }
  put(content);
  if (!content.trim()) say(`“${file.name}” is empty.`);
}

function put(content) {
  text.value = content;
  by("form").elements.mode.value = "one";
  say("");
  measure();
}

function watchFiles() {
  by("open").addEventListener("click", () => by("file").click());
  by("file").addEventListener("change", () => {
    openFile(by("file").files[0]);
    by("file").value = "";
  });
  watchDrops(by("drop"), (files) => {
    if (files.length > 1) say("One file at a time: the first one was opened.");
    openFile(files[0]);
  });
}

function addExamples() {
  for (const [name, example] of EXAMPLES) {
    const button = make("button", "chip", name);
    button.type = "button";
    button.addEventListener("click", () => {
      put(example);
      submit();
    });
    by("examples").append(button);
  }
}

async function greet() {
  try {
    service = await health();
    const { bundle, variant } = service.model;
    by("model-text").textContent = [bundle, variant ?? "reference", engineName(service.model)].join(" · ");
    by("model").classList.add("ready");
    by("intro-text").textContent =
      `Paste a text or drop a file. A small model tells ${listed(service.labels)} apart, and shows which words decided.`;
    document.title = `edgewise: ${bundle}`;
    show(by("key-row"), service.key_required);
  } catch (failure) {
    by("model-text").textContent = "not reachable";
    say(failure.message);
  }
  measure();
}

function listed(labels) {
  if (labels.length > 6) return `${labels.length} topics`;
  return `${labels.slice(0, -1).join(", ")} and ${labels.at(-1)}`;
}

by("form").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    submit();
  }
});
text.addEventListener("input", () => {
  say("");
  measure();
});
by("lines").addEventListener("change", measure);
by("clear").addEventListener("click", () => {
  put("");
  text.focus();
});
by("stop").addEventListener("click", () => running?.abort());
if (/Mac|iPhone|iPad/.test(navigator.platform)) by("modifier").textContent = "\u2318";
watchFiles();
watchWords();
addExamples();
greet();
