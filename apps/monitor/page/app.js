// Wires the page: key, list, the series that is looked at, and the clock that asks for what is new.

import { useKey } from "/look/talk.js";
import { by, make, show } from "/look/dom.js";
import * as api from "./api.js";
import { drawAlarms, setUp as setUpAlarms } from "./alarms.js";
import { Charts, drawn, moreButton } from "./chart.js";
import { drawList, stateWord } from "./list.js";
import { drawThreshold, setUp as setUpThreshold } from "./threshold.js";
import { number, time, times } from "./format.js";

const EVERY = 1000; // ms between two looks
const RANGES = [200, 600, 2000, 5000];

const charts = new Charts(by("charts"));
const state = { series: [], role: "read", chosen: null, range: 600, data: null, alarms: [], marks: [], loaded: null, known: null };

function say(line) {
  by("message").textContent = line;
  show(by("message"), Boolean(line));
}

async function greet() {
  try {
    const { model, key_required: locked } = await api.health();
    by("model-text").textContent = [model.bundle, model.variant].filter(Boolean).join(" ");
    by("model").classList.add("ready");
    show(by("key-form"), locked);
    if (locked) by("key").focus();
    else tick();
  } catch (failure) {
    by("model-text").textContent = "not reachable";
    say(failure.message);
    setTimeout(greet, 3 * EVERY);
  }
}

by("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  useKey(by("key").value);
  by("key").setCustomValidity("");
  try {
    await api.series();
    show(by("key-form"), false);
    tick();
  } catch (failure) {
    by("key").setCustomValidity(failure.message);
    by("key").reportValidity();
  }
});
by("key").addEventListener("input", () => by("key").setCustomValidity(""));

// One look at what is new; then the next one, a moment later.
async function tick() {
  let wait = EVERY;
  try {
    if (!document.hidden) await refresh();
    by("model").classList.add("ready");
    say("");
  } catch (failure) {
    by("model").classList.remove("ready");
    say(failure.message);
    wait = Math.max(3 * EVERY, (failure.retry ?? 0) * 1000);
    if (failure.status === 401) {
      show(by("key-form"), true);
      show(by("board"), false);
      return;
    }
  }
  setTimeout(tick, wait);
}

async function refresh() {
  const { series, role } = await api.series();
  Object.assign(state, { series, role });
  show(by("empty"), !series.length);
  show(by("board"), series.length > 0);
  by("first").textContent = `curl ${location.origin}/series/first/points -H 'Content-Type: text/csv' -d "$(date +%s),42"`;
  if (!series.length) return;
  if (!series.some(({ name }) => name === state.chosen)) {
    const wanted = decodeURIComponent(location.hash.slice(1));
    const first = series.find(({ name }) => name === wanted) ?? series.find((one) => one.state === "alarm") ?? series[0];
    select(first.name);
  }
  drawList(series, state.chosen, choose);
  await look();
}

function select(name) {
  Object.assign(state, { chosen: name, data: null, loaded: null, marks: [] });
  by("log-card").open = false;
  by("refit-told").textContent = "";
}

async function choose(name) {
  select(name);
  history.replaceState(null, "", `#${encodeURIComponent(name)}`);
  drawList(state.series, name, choose);
  try {
    await look();
    if (innerWidth < 820) by("view").scrollIntoView({ behavior: "smooth" });
  } catch (failure) {
    say(failure.message);
  }
}

const chosen = () => state.series.find(({ name }) => name === state.chosen);

// The points, alarms and threshold of the series that is looked at.
async function look() {
  const one = chosen();
  const { name } = one;
  const since = state.loaded === name ? state.data.times.at(-1) ?? -1 : -1;
  const all = by("all-series").checked;
  const [fresh, { alarms }] = await Promise.all([
    api.points(name, since, state.range),
    api.alarms(all ? null : name),
  ]);
  if (name !== state.chosen) return; // another one was chosen meanwhile
  state.data = since === -1 ? fresh : joined(state.data, fresh, state.range);
  announce(alarms);
  state.alarms = alarms;
  drawView(one, state.loaded !== name);
  state.loaded = name;
  drawAlarms(alarms, all, state.role !== "read");
  await drawThreshold(one, state.role === "admin");
}

function joined(before, fresh, most) {
  const found = { channels: before.channels };
  for (const key of Object.keys(fresh)) {
    if (key !== "channels") found[key] = [...before[key], ...fresh[key]].slice(-most);
  }
  return found;
}

function announce(alarms) {
  const ids = new Set(alarms.map(({ id }) => id));
  const fresh = state.known ? alarms.filter(({ id }) => !state.known.has(id)) : [];
  if (fresh.length) by("news").textContent = `New alarm in ${fresh[0].series}`;
  state.known = new Set([...(state.known ?? []), ...ids]);
}

function drawView(one, anew) {
  by("view-name").textContent = one.name;
  by("view-state").textContent = stateWord(one.state);
  by("view-state").className = `state is-${one.state}`;
  const learning = one.state === "learning";
  show(by("learning"), learning);
  by("learned").value = Math.min(1, one.points / one.warm_up);
  by("learning-text").textContent = `Learning what is normal: ${Math.min(one.points, one.warm_up).toLocaleString("en")} of ${times(one.warm_up, "point")}`;
  const dropped = one.late + one.repeated ? ` · ${one.late} late and ${one.repeated} repeated ones were dropped` : "";
  by("view-meta").textContent = `${times(one.points, "point")} · newest ${one.last_time === null ? "–" : time(one.last_time)}${dropped}`;
  show(by("drifted"), one.drifted);
  for (const id of ["refit", "refit-more"]) show(by(id), state.role === "admin" && !learning);
  show(by("no-charts"), !drawn());
  by("plain-values").textContent = `Newest: ${(one.values ?? []).map(number).join(", ")}; score ${number(one.score)}.`;
  if (!drawn()) return;
  if (anew) charts.open(one.channels);
  moreButton(charts);
  charts.set(state.data, one.threshold, periods(one), state.marks);
}

const periods = (one) => state.alarms
  .filter(({ series }) => series === one.name)
  .map(({ start, end }) => [start, end ?? one.last_time]);

for (const count of RANGES) {
  const button = make("button", "plain", count.toLocaleString("en"));
  button.type = "button";
  button.setAttribute("aria-pressed", String(count === state.range));
  button.setAttribute("aria-label", `${count} points`);
  button.addEventListener("click", async () => {
    state.range = count;
    for (const other of by("ranges").children) other.setAttribute("aria-pressed", String(other === button));
    state.loaded = null;
    await guarded(look);
  });
  by("ranges").append(button);
}

by("more-channels").addEventListener("click", () => {
  charts.shown = Infinity;
  charts.redraw();
  moreButton(charts);
});
by("search").addEventListener("input", () => drawList(state.series, state.chosen, choose));
by("all-series").addEventListener("change", () => guarded(look));
by("log-card").addEventListener("toggle", () => by("log-card").open && guarded(drawLog));

async function drawLog() {
  const { log } = await api.log(state.chosen);
  by("log").replaceChildren(...log.map(({ at, kind, who, detail }) => {
    const told = Object.entries(detail)
      .filter(([, value]) => typeof value !== "object" || value === null)
      .map(([key, value]) => `${key} ${typeof value === "number" ? number(value) : value}`);
    const row = make("li");
    row.append(make("span", "when", time(at)), make("b", "", kind), make("span", "about", [`by ${who}`, ...told].join(" · ")));
    return row;
  }));
  if (!log.length) by("log").replaceChildren(make("li", "", "Nothing yet."));
}

by("refit").addEventListener("click", async () => {
  by("refit").disabled = true;
  by("refit-told").textContent = "judging both…";
  try {
    const { kept, why } = await api.refit(state.chosen, by("refit-alarmed").checked);
    by("refit-told").textContent = `${kept === "new" ? "Taken" : "The old profile stays"}: ${why}`;
    await drawLog();
  } catch (failure) {
    by("refit-told").textContent = failure.message;
  }
  by("refit").disabled = false;
});

async function guarded(work) {
  try {
    await work();
  } catch (failure) {
    say(failure.message);
  }
}

setUpAlarms(() => guarded(look));
setUpThreshold(
  (marks) => {
    state.marks = marks;
    const one = chosen();
    if (one && state.data && state.loaded === one.name && drawn()) charts.set(state.data, one.threshold, periods(one), marks);
  },
  refresh,
  say,
);
greet();
