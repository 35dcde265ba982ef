// Wires the page: key, collections, questions, and the reader of a whole document.

import { useKey } from "/look/talk.js";
import { by, make, show } from "/look/dom.js";
import * as api from "./api.js";
import { drawReply, forgetReply, marked } from "./ask.js";
import * as documents from "./documents.js";

let running = null; // the AbortController of the question under way

const chosen = () => by("collection").value;

function say(message) {
  by("message").textContent = message;
  show(by("message"), Boolean(message));
}

async function greet() {
  try {
    const { models, key_required: locked } = await api.health();
    const told = ({ bundle, variant }) => [bundle, variant].filter(Boolean).join(" ");
    by("model-text").textContent = `${told(models.reader)} · ${told(models.embedder)}`;
    show(by("key-form"), locked);
    show(by("columns"), !locked);
    if (locked) by("key").focus();
    else await openShelf();
    by("model").classList.add("ready");
  } catch (failure) {
    by("model-text").textContent = "not reachable";
    say(failure.message);
  }
}

// What the key may do, and the collections that it sees.
async function openShelf(wanted = chosen()) {
  const { role, collections } = await api.collections();
  by("collection").replaceChildren(...collections.map(({ name }) => {
    const option = make("option", "", name);
    option.value = name;
    return option;
  }));
  if (collections.some(({ name }) => name === wanted)) by("collection").value = wanted;
  show(by("make"), role === "admin");
  show(by("columns"), true);
  if (!collections.length) {
    by("documents").replaceChildren();
    documents.say("There is no collection that you can see yet.");
    return;
  }
  await documents.showCollection(chosen(), role !== "read");
}

by("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  useKey(by("key").value);
  forgetReply();
  say("");
  by("key").setCustomValidity("");
  try {
    await openShelf();
    by("question").focus();
  } catch (failure) {
    show(by("columns"), false);
    by("key").setCustomValidity(failure.message);
    by("key").reportValidity();
  }
});
by("key").addEventListener("input", () => by("key").setCustomValidity(""));

by("ask-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  running?.abort();
  const mine = new AbortController();
  running = mine;
  say("");
  busy(true);
  try {
    await greeted; // until then no collection is chosen
    const reply = await api.ask(by("question").value, chosen(), mine.signal);
    drawReply(reply, openDocument);
  } catch (failure) {
    if (failure.name === "AbortError") return;
    forgetReply();
    say(failure.message);
  } finally {
    if (mine === running) busy(false);
  }
});
by("question").addEventListener("input", () => say(""));

function busy(on) {
  by("results").setAttribute("aria-busy", String(on));
  by("go").classList.toggle("busy", on);
}

by("collection").addEventListener("change", async () => {
  forgetReply();
  await guarded(() => openShelf());
});

by("make").addEventListener("submit", async (event) => {
  event.preventDefault();
  const name = by("make-name").value.trim();
  await guarded(async () => {
    await api.makeCollection(name);
    by("make-name").value = "";
    forgetReply();
    await openShelf(name);
  });
});

by("drop-collection").addEventListener("click", async () => {
  const name = chosen();
  if (!confirm(`Delete the collection “${name}” with all its documents?`)) return;
  await guarded(async () => {
    await api.dropCollection(name);
    forgetReply();
    await openShelf();
  });
});

async function guarded(work) {
  documents.say("");
  try {
    await work();
  } catch (failure) {
    documents.say(failure.message);
  }
}

// The whole text of a document, at the place of an answer where there is one.
async function openDocument({ document: id, name, document_start: at, start, end }) {
  await guarded(async () => {
    const { text } = await api.document(chosen(), id);
    by("reader-title").textContent = name;
    const place = at === undefined ? [text] : marked(text, at, at + end - start);
    by("reader-text").replaceChildren(...place);
    by("reader").showModal();
    by("reader-text").querySelector("mark")?.scrollIntoView({ block: "center" });
  });
}
by("reader-close").addEventListener("click", () => by("reader").close());
by("reader").addEventListener("click", (event) => {
  if (event.target === by("reader")) by("reader").close(); // the backdrop
});

documents.setUp(openDocument);
const greeted = greet();
