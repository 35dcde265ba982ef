// Alarms: the list, and the explanation of one with its acknowledgement.

import { by, make, percent, show } from "/look/dom.js";
import * as api from "./api.js";
import { drawWhy } from "./chart.js";
import { duration, number, time } from "./format.js";

// The parts of a score (PARTS in runtimes/profile.py).
const WORDS = {
  forecast: "values were not as forecast just then",
  recent: "values had strayed from the forecast for a while",
  course: "values had strayed from the forecast for long",
  value: "values were outside what is usual",
  level: "the level was unusual",
  shape: "the pattern was not one that is known",
  spread: "it moved much more or much less than usual",
};
let open = null; // the alarm that is explained
let mayWrite = false;
let drawn = "";
let changed = () => {};

// `after` is called when an alarm was acknowledged.
export function setUp(after) {
  changed = after;
  by("why-close").addEventListener("click", () => by("why").close());
  by("why").addEventListener("click", (event) => {
    if (event.target === by("why")) by("why").close(); // the backdrop
  });
  by("ack-form").addEventListener("submit", acknowledge);
}

export function drawAlarms(alarms, named, write) {
  mayWrite = write;
  const shown = JSON.stringify([alarms, named]);
  if (shown === drawn) return;
  drawn = shown;
  const focused = document.activeElement?.dataset?.alarm;
  by("alarms").replaceChildren(...alarms.map((one) => item(one, named)));
  if (focused) by("alarms").querySelector(`[data-alarm="${CSS.escape(focused)}"]`)?.focus();
  show(by("no-alarms"), !alarms.length);
}

function item(alarm, named) {
  const row = make("li");
  const button = make("button", alarm.acked ? "alarm acked" : "alarm");
  button.type = "button";
  button.dataset.alarm = alarm.id;
  const loud = alarm.channels.filter(({ share }) => share >= 0.15).slice(0, 3).map(({ name }) => name);
  const [first] = alarm.channels;
  const lasted = alarm.closed === null ? "still open" : duration(alarm.end - alarm.start);
  const bar = make("span", "severity");
  bar.append(make("span", "fill"));
  bar.firstChild.style.setProperty("--share", alarm.severity);
  bar.title = `severity ${percent(alarm.severity)}`;
  button.append(
    make("span", "when", `${time(alarm.start)} · ${lasted}`),
    bar,
    make("span", "what", `${named ? `${alarm.series}: ` : ""}${loud.join(", ") || first.name}: ${number(first.seen)} where ${number(first.expected)} was expected`),
    make("span", "about", alarm.acked ? `acknowledged by ${alarm.acked_by}` : "not acknowledged"),
  );
  button.addEventListener("click", () => explain(alarm));
  row.append(button);
  return row;
}

export async function explain(alarm) {
  open = alarm;
  say("");
  by("why-title").textContent = `${alarm.series}, ${time(alarm.peak_time)}`;
  by("why-text").textContent = `Score ${number(alarm.score)} over the threshold of ${number(alarm.threshold)}, severity ${percent(alarm.severity)}. ${evidence(alarm.parts)}`;
  by("why-charts").replaceChildren();
  by("why-rows").replaceChildren(...alarm.channels.map(channel));
  by("note").value = "";
  drawAck();
  if (!by("why").open) by("why").showModal();
  try {
    const found = await api.explain(alarm.series, alarm.channels[0].at);
    if (open !== alarm) return;
    drawWhy(by("why-charts"), found.window, alarm.channels, [alarm.start, alarm.end ?? found.window.times.at(-1)]);
  } catch (failure) {
    say(`The points around it cannot be shown: ${failure.message}`);
  }
}

// What spoke for it, in plain words: the parts of the score that matter, the largest first.
function evidence(parts) {
  const loud = Object.entries(parts ?? {}).filter(([part, share]) => share >= 0.1 && WORDS[part]);
  loud.sort(([, a], [, b]) => b - a);
  return loud.length ? `What spoke for it: ${loud.map(([part, share]) => `${WORDS[part]} (${percent(share)})`).join(", ")}.` : "";
}

function channel({ name, share, seen, expected }) {
  const row = make("tr");
  row.append(make("td", "", name), make("td", "number", percent(share ?? 0)), make("td", "number", number(seen)), make("td", "number", number(expected)));
  return row;
}

function drawAck() {
  show(by("ack-form"), mayWrite && !open.acked);
  show(by("acked"), Boolean(open.acked));
  const note = open.note ? `: “${open.note}”` : "";
  by("acked").textContent = open.acked ? `Acknowledged by ${open.acked_by}, ${time(open.acked)}${note}` : "";
}

async function acknowledge(event) {
  event.preventDefault();
  say("");
  try {
    open = await api.acknowledge(open.id, by("note").value.trim());
    drawAck();
    changed();
  } catch (failure) {
    say(failure.message);
  }
}

function say(line) {
  by("why-message").textContent = line;
  show(by("why-message"), Boolean(line));
}
