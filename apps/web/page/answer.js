// Draws one answer: the topic bars, and the words with what each one did.

import { by, engineName, make, percent, points, show } from "./dom.js";

const FAINT = 0.005; // half a percentage point: a word below it gets no colour
const LISTED = 4;

// `asked` is remembered, so that an error about another text can take the answer away.
export function drawAnswer(asked, answer) {
  by("answer").asked = asked;
  by("top").textContent = answer.label;
  const bars = by("bars");
  const known = new Map([...bars.children].map((bar) => [bar.dataset.label, bar]));
  const scores = Object.entries(answer.scores);
  const rows = scores.map(([label]) => known.get(label) ?? newBar(label));
  bars.replaceChildren(...rows);
  rows.forEach((row, rank) => {
    const score = scores[rank][1];
    row.classList.toggle("best", rank === 0);
    row.querySelector(".score").textContent = percent(score);
    // A frame later, so that the bar grows from where it was.
    requestAnimationFrame(() => row.style.setProperty("--share", score));
  });
  show(by("empty"), false);
  show(by("answer"), true);
}

function newBar(label) {
  const row = make("li", "bar");
  row.dataset.label = label;
  const track = make("span", "track");
  track.append(make("span", "fill"));
  track.setAttribute("aria-hidden", "true");
  row.append(make("span", "label", label), make("span", "score"), track);
  return row;
}

export function forgetAnswer(asked) {
  if (by("answer").asked === asked) return;
  show(by("answer"), false);
  show(by("empty"), true);
}

export function drawTiming(reply) {
  const { variant, threads } = reply.model;
  const cores = threads ? `, ${threads} thread${threads === 1 ? "" : "s"}` : "";
  by("timing").textContent =
    `${reply.latency_ms.toFixed(1)} ms in the model · ${reply.roundTrip.toFixed(0)} ms round trip · ` +
    `${variant ?? "reference"} on ${engineName(reply.model)}${cores}`;
}

export function drawWorking() {
  show(by("why"), true);
  by("why").classList.add("working");
  by("detail").textContent = "Leaving out one word after the other…";
}

// Offsets count code points, as Python does; JavaScript strings count UTF-16 units.
export function drawWords(text, explanation) {
  const characters = Array.from(text);
  const most = Math.max(FAINT, ...explanation.words.map((word) => Math.abs(word.contribution)));
  const container = by("words");
  const pieces = [];
  let at = 0;
  for (const word of [...explanation.words].sort((one, other) => one.start - other.start)) {
    if (word.start < at || word.end > characters.length) continue;
    pieces.push(characters.slice(at, word.start).join(""));
    pieces.push(newWord(characters.slice(word.start, word.end).join(""), word, most, explanation.label));
    at = word.end;
  }
  pieces.push(characters.slice(at).join(""));
  container.replaceChildren(...pieces);
  by("why").classList.remove("working");
  drawLegend(explanation.label);
  drawSummary(explanation);
  const first = strongest(container);
  if (first) first.tabIndex = 0;
  show(by("why"), true);
}

export function hideWords() {
  by("why").classList.remove("working");
  show(by("why"), false);
}

function newWord(shown, word, most, label) {
  const mark = make("mark", "word", shown);
  const strength = Math.abs(word.contribution);
  if (strength >= FAINT) {
    mark.classList.add(word.contribution > 0 ? "for" : "against");
    mark.style.setProperty("--strength", (0.14 + 0.86 * (strength / most)).toFixed(3));
  }
  mark.tabIndex = -1;
  mark.dataset.points = points(word.contribution);
  mark.title = `${points(word.contribution)} points for ${label}`;
  mark.word = word;
  return mark;
}

function strongest(container) {
  const marks = [...container.querySelectorAll(".word")];
  const strength = (mark) => Math.abs(mark.word.contribution);
  return marks.reduce((best, mark) => (!best || strength(mark) > strength(best) ? mark : best), null);
}

function drawLegend(label) {
  by("legend").replaceChildren(
    make("span", "swatch for", "for"), ` ${label} `, make("span", "swatch against", "against"),
  );
}

// What stands in the line below while no word is pointed at.
function drawSummary(explanation) {
  const list = (words) => words.slice(0, LISTED)
    .map((word) => `${word.text} ${points(word.contribution)}`).join(", ");
  const sorted = [...explanation.words].sort((one, other) => other.contribution - one.contribution);
  const speaking = sorted.filter((word) => word.contribution >= FAINT);
  const opposing = sorted.filter((word) => word.contribution <= -FAINT).reverse();
  const lines = [];
  if (speaking.length) lines.push(`For ${explanation.label}: ${list(speaking)}.`);
  if (opposing.length) lines.push(`Against: ${list(opposing)}.`);
  if (lines.length) lines.push("In points of probability.");
  else lines.push("No single word changes the answer: it rests on the text as a whole.");
  const detail = by("detail");
  detail.dataset.summary = lines.join(" ");
  detail.dataset.label = explanation.label;
  detail.textContent = detail.dataset.summary;
}

// Pointing at a word, tapping it or moving to it with the arrow keys tells its figure.
export function watchWords() {
  const container = by("words");
  const tell = (mark) => {
    for (const other of container.querySelectorAll(".told")) other.classList.remove("told");
    const detail = by("detail");
    if (!mark) {
      detail.textContent = detail.dataset.summary ?? "";
      return;
    }
    mark.classList.add("told");
    const change = mark.word.contribution >= 0 ? "falls" : "rises";
    const size = Math.abs(mark.word.contribution * 100).toFixed(1);
    detail.textContent =
      `${mark.dataset.points} points: without “${mark.textContent}”, ${detail.dataset.label} ${change} by ${size}.`;
  };
  const wordOf = (event) => event.target.closest?.(".word");
  container.addEventListener("pointerover", (event) => tell(wordOf(event)));
  container.addEventListener("pointerleave", () => tell(container.querySelector(".word:focus")));
  container.addEventListener("click", (event) => wordOf(event)?.focus());
  container.addEventListener("focusin", (event) => tell(wordOf(event)));
  container.addEventListener("focusout", () => tell(null));
  container.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const marks = [...container.querySelectorAll(".word")];
    const next = marks[marks.indexOf(document.activeElement) + step];
    if (!next) return;
    for (const mark of marks) mark.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
}
