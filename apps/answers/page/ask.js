// Draws what came back for a question: answers in their passages, the question back, or that there is none.

import { by, make, percent, show } from "/look/dom.js";

const SHOWN = 3; // sources of an answer that stand open

export function drawReply(reply, openSource) {
  show(by("empty"), false);
  show(by("results"), true);
  const none = reply.answers.length === 0;
  show(by("not-found"), none);
  show(by("ask-back"), Boolean(reply.ask_back));
  by("not-found-text").textContent = reply.searched
    ? `${reply.searched} passages were read, and none of them answers this. Ask in other words, or add a document.`
    : "No passage fits this question. Ask in other words, or add a document.";
  const cards = reply.answers.map((answer, rank) => answerCard(answer, rank, openSource));
  by("answers").replaceChildren(...cards);
  showMarks(by("answers"));
  if (reply.ask_back) drawChoices(reply, cards);
  by("timing").textContent =
    `${reply.searched} passages read · ${reply.latency_ms.toFixed(0)} ms in the service`;
}

export function forgetReply() {
  show(by("results"), false);
  show(by("empty"), true);
}

// A long passage is scrolled to its answer.
function showMarks(within) {
  for (const quote of within.querySelectorAll(".passage")) {
    const mark = quote.querySelector("mark");
    quote.scrollTop = mark.offsetTop - quote.clientHeight / 2;
  }
}

// Two close readings: each can be chosen, and the other one goes.
function drawChoices(reply, cards) {
  by("ask-back-title").textContent = reply.ask_back.replace(/^Two answers are close: /, "");
  const buttons = reply.answers.slice(0, 2).map((answer, rank) => {
    const button = make("button", "choice");
    button.type = "button";
    button.append(make("b", "", answer.text), make("small", "", placeOf(answer.sources[0])));
    button.addEventListener("click", () => {
      cards.forEach((card, index) => show(card, index === rank));
      buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
    });
    button.setAttribute("aria-pressed", "false");
    return button;
  });
  by("choices").replaceChildren(...buttons);
}

const placeOf = (source) => [source.name, source.heading].filter(Boolean).join(" › ");

function answerCard(answer, rank, openSource) {
  const card = make("section", rank ? "card answer" : "card answer best");
  const head = make("div", "answer-head");
  head.append(make("h2", "answer-text", answer.text), confidence(answer.confidence));
  card.append(make("p", "eyebrow", rank ? "Also possible" : "Answer"), head);
  answer.sources.slice(0, SHOWN).forEach((source) => card.append(sourceBlock(source, openSource)));
  const rest = answer.sources.slice(SHOWN);
  if (rest.length) {
    const more = make("details", "more-sources");
    more.addEventListener("toggle", () => showMarks(more));
    more.append(make("summary", "", `${rest.length} more`));
    rest.forEach((source) => more.append(sourceBlock(source, openSource)));
    card.append(more);
  }
  return card;
}

function confidence(share) {
  const word = share >= 0.8 ? "sure" : share >= 0.5 ? "fairly sure" : "unsure";
  const meter = make("p", `confidence ${word.replace(" ", "-")}`);
  const track = make("span", "track");
  const fill = make("span", "fill");
  fill.style.setProperty("--share", share);
  track.append(fill);
  track.setAttribute("aria-hidden", "true");
  meter.append(make("span", "confidence-text", `${percent(share)} ${word}`), track);
  meter.title = "The probability that the answer is right";
  return meter;
}

function sourceBlock(source, openSource) {
  const block = make("figure", "source");
  const quote = make("blockquote", "passage");
  quote.append(...marked(source.passage, source.start, source.end));
  const caption = make("figcaption");
  const open = make("button", "link", source.name);
  open.type = "button";
  open.addEventListener("click", () => openSource(source));
  caption.append(open);
  if (source.heading) caption.append(make("span", "heading", source.heading));
  block.append(quote, caption);
  return block;
}

// Offsets count code points, as Python does; JavaScript strings count UTF-16 units.
export function marked(text, start, end) {
  const characters = Array.from(text);
  const piece = (from, to) => characters.slice(from, to).join("");
  const mark = make("mark", "", piece(start, end));
  return [piece(0, start), mark, piece(end, characters.length)];
}
