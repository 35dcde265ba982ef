// The documents of a collection: listed, dropped in with progress, deleted.

import * as api from "./api.js";
import { by, count, make, show, watchDrops } from "/look/dom.js";

const TRIES = 6;
const FIRST_LOOK = 300; // milliseconds until a job is asked about again; then longer and longer
const LAST_LOOK = 3000;

let shown = { collection: "", may: false, next: null };
let uploading = Promise.resolve();
let openDocument = () => {};

export function setUp(open) {
  openDocument = open;
  by("open").addEventListener("click", () => by("files").click());
  by("files").addEventListener("change", () => {
    take([...by("files").files]);
    by("files").value = "";
  });
  by("more").addEventListener("click", () => draw(shown.next));
  watchDrops(by("drop"), (files) => {
    if (shown.may) take(files);
  });
}

export function say(message) {
  by("side-message").textContent = message;
  show(by("side-message"), Boolean(message));
}

// `may`: whether the key may write.
export async function showCollection(collection, may) {
  shown = { collection, may, next: null };
  show(by("drop"), may);
  say("");
  await draw("");
}

async function draw(after) {
  const { collection } = shown;
  const list = by("documents");
  const reply = await api.documents(collection, after || "");
  if (collection !== shown.collection) return;
  const rows = reply.documents.sort((one, other) => one.name.localeCompare(other.name)).map(row);
  if (after) list.append(...rows);
  else list.replaceChildren(...rows);
  shown.next = reply.next;
  show(by("more"), Boolean(reply.next));
  const number = list.children.length;
  const some = `${count(number)}${reply.next ? " of more" : ""} document${number === 1 ? "" : "s"}`;
  by("count").textContent = number ? some : shown.may ? "" : "No documents yet.";
}

function row(document) {
  const item = make("li", "document");
  const name = make("button", "link name", document.name);
  name.type = "button";
  name.addEventListener("click", () => openDocument({ document: document.id, name: document.name }));
  const about = make("span", "about", `${document.kind.toUpperCase()} · ${count(document.characters)} characters`);
  item.append(name, about);
  if (shown.may) item.append(deleteButton(document, item));
  return item;
}

// A second press within a few seconds deletes: no dialog, and nothing lost by a slip.
function deleteButton(document, item) {
  const button = make("button", "plain delete", "Delete");
  button.type = "button";
  button.setAttribute("aria-label", `Delete ${document.name}`);
  let timer = 0;
  button.addEventListener("click", async () => {
    if (!timer) {
      button.textContent = "Really?";
      button.classList.add("danger");
      timer = setTimeout(() => {
        timer = 0;
        button.textContent = "Delete";
        button.classList.remove("danger");
      }, 4000);
      return;
    }
    clearTimeout(timer);
    button.disabled = true;
    try {
      await api.remove(shown.collection, document.id);
      item.remove();
      await draw("");
    } catch (failure) {
      button.disabled = false;
      say(failure.message);
    }
  });
  return button;
}

// One after the other; what is not yet sent waits here, not in the service.
function take(files) {
  say("");
  const { collection } = shown;
  for (const file of files) {
    const line = progressLine(file.name);
    by("uploads").append(line.item);
    uploading = uploading.then(() => bring(file, collection, line));
  }
}

async function bring(file, collection, line) {
  try {
    const job = await patiently(() => api.upload(file, collection, (share) => line.at("sending", share)), line);
    const done = await watch(job, line);
    if (done.state === "failed") throw new Error(done.error);
    line.item.remove();
  } catch (failure) {
    line.failed(failure.message);
  }
  if (collection === shown.collection) await draw("").catch((failure) => say(failure.message));
}

async function watch(job, line) {
  let pause = FIRST_LOOK;
  while (job.state !== "done" && job.state !== "failed") {
    const share = job.passages ? job.embedded / job.passages : null;
    line.at(job.state, share);
    await new Promise((resolve) => { setTimeout(resolve, pause); });
    pause = Math.min(pause * 1.6, LAST_LOOK);
    job = await patiently(() => api.job(job.id), line);
  }
  return job;
}

// Waits as long as the service says where it is over its rate or full.
async function patiently(work, line) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await work();
    } catch (failure) {
      if (!failure.retry || tries === TRIES) throw failure;
      line.at("waiting", null);
      await new Promise((resolve) => { setTimeout(resolve, failure.retry * 1000); });
    }
  }
}

function progressLine(name) {
  const item = make("li", "upload");
  const about = make("span", "about", "waiting");
  const bar = make("progress");
  bar.max = 1;
  bar.value = 0;
  bar.setAttribute("aria-label", `Progress of ${name}`);
  item.append(make("span", "name", name), about, bar);
  return {
    item,
    at(state, share) {
      about.textContent = share === null ? `${state}…` : `${state} ${Math.round(share * 100)} %`;
      if (share === null) bar.removeAttribute("value");
      else bar.value = share;
    },
    failed(message) {
      item.classList.add("failed");
      about.textContent = message;
      bar.remove();
      const gone = make("button", "plain delete", "Dismiss");
      gone.type = "button";
      gone.addEventListener("click", () => item.remove());
      item.append(gone);
    },
  };
}
