// Many texts, one a line: sent in pieces that the service takes, drawn as a table, saved as CSV.

import { classifyAll } from "./api.js";
import { by, count, make, percent, show } from "./dom.js";

const SHOWN = 300; // rows drawn; the CSV holds them all
const TRIES = 5;

// Lines that hold something, with their number in the file.
export function linesOf(text) {
  return text.split(/\r\n|\r|\n/)
    .map((line, index) => ({ number: index + 1, text: line.trim() }))
    .filter((line) => line.text);
}

// Pieces within the service's limits on texts and bytes.
export function piecesOf(lines, limits) {
  const room = limits.max_body_bytes - 64;
  const pieces = [];
  let bytes = Infinity;
  for (const line of lines) {
    const size = new TextEncoder().encode(JSON.stringify(line.text)).length + 1;
    if (bytes + size > room || pieces.at(-1).length >= limits.max_batch) {
      pieces.push([]);
      bytes = 0;
    }
    pieces.at(-1).push(line);
    bytes += size;
  }
  return pieces;
}

export async function runBatch(lines, limits, labels, signal) {
  const done = [];
  const began = performance.now();
  let inModel = 0;
  start(lines.length);
  try {
    for (const piece of piecesOf(lines, limits)) {
      const reply = await patiently(piece.map((line) => line.text), signal);
      inModel += reply.latency_ms;
      reply.answers.forEach((answer, index) => done.push({ ...piece[index], answer }));
      drawRows(done);
      drawShares(done, labels);
      by("progress").value = done.length;
      by("batch-meta").textContent = told(done.length, lines.length, inModel, performance.now() - began);
    }
  } finally {
    show(by("progress"), false);
    show(by("stop"), false);
    show(by("csv"), done.length > 0);
    by("csv").onclick = () => download(csvOf(done, labels));
  }
  return done;
}

// Waits as long as the service says where it is over its rate or full.
async function patiently(texts, signal) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await classifyAll(texts, signal);
    } catch (failure) {
      if (!failure.retry || tries === TRIES) throw failure;
      by("batch-meta").textContent = `The service asks to wait ${failure.retry} s…`;
      await pause(failure.retry * 1000, signal);
    }
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    signal.addEventListener("abort", stop, { once: true });
  });
}

function start(total) {
  by("rows").replaceChildren();
  by("shares").replaceChildren();
  by("progress").max = total;
  by("progress").value = 0;
  by("batch-meta").textContent = `0 of ${count(total)} lines`;
  for (const id of ["batch", "progress", "stop"]) show(by(id), true);
  for (const id of ["csv", "more"]) show(by(id), false);
}

function told(done, total, inModel, wall) {
  const lines = done === total ? `${count(total)} lines` : `${count(done)} of ${count(total)} lines`;
  return `${lines} · ${(inModel / done).toFixed(1)} ms a line in the model · ${(wall / 1000).toFixed(1)} s in all`;
}

function drawRows(done) {
  const body = by("rows");
  for (const row of done.slice(body.children.length, SHOWN)) body.append(newRow(row));
  show(by("more"), done.length > SHOWN);
  by("more").textContent = `The first ${SHOWN} lines are shown; the CSV holds all ${count(done.length)}.`;
}

function newRow({ number, text, answer }) {
  const row = make("tr");
  const words = make("td", "line-text", text);
  words.title = text;
  const score = make("td", "number score-cell", percent(answer.score));
  score.style.setProperty("--share", answer.score);
  const topic = make("td", "topic");
  topic.append(make("span", "tag", answer.label));
  row.append(make("td", "number", String(number)), words, topic, score);
  return row;
}

function drawShares(done, labels) {
  const counts = new Map(labels.map((label) => [label, 0]));
  for (const { answer } of done) counts.set(answer.label, (counts.get(answer.label) ?? 0) + 1);
  const shares = [...counts].sort((one, other) => other[1] - one[1]).map(([label, number]) => {
    const item = make("li", "", `${label} `);
    item.append(make("b", "", count(number)));
    return item;
  });
  by("shares").replaceChildren(...shares);
}

// RFC 4180. A cell that a spreadsheet would run as a formula gets an apostrophe in front.
function cell(value) {
  const text = String(value);
  const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

export function csvOf(done, labels) {
  const head = ["line", "text", "label", "score", ...labels.map((label) => `score: ${label}`)];
  const rows = done.map(({ number, text, answer }) =>
    [number, text, answer.label, answer.score, ...labels.map((label) => answer.scores[label] ?? "")]);
  return [head, ...rows].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

function download(csv) {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob(["\ufeff", csv], { type: "text/csv;charset=utf-8" }));
  link.download = "topics.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
