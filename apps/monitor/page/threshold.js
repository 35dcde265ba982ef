// The threshold's slider: what another one would have done to the past, before it is set.

import { by, show } from "/look/dom.js";
import * as api from "./api.js";
import { number, times } from "./format.js";

const LEAST = 10; // the slider goes from a tenth of the learned threshold to ten times it, or over the highest peak
let name = null;
let middle = 1;
let above = LEAST;
let now = null;
let running = null;
let timer = 0;
let told = () => {};

const span = (place) => (place < 500 ? LEAST : above);
const valueAt = (place) => middle * span(place) ** (place / 500 - 1);
const placeOf = (value) => Math.round(500 * (1 + Math.log(value / middle) / Math.log(value < middle ? LEAST : above)));

// `draw` is called with the periods that the chart is to mark, `set` when a threshold was set, `say` with errors.
export function setUp(draw, set, say) {
  told = draw;
  by("threshold").addEventListener("input", () => {
    const value = valueAt(by("threshold").valueAsNumber);
    write(value);
    clearTimeout(timer);
    timer = setTimeout(() => look(value), 120);
  });
  const send = async (value) => {
    try {
      await api.setThreshold(name, value);
      name = null; // so that the slider is placed anew
      await set();
    } catch (failure) {
      say(failure.message);
    }
  };
  by("apply").addEventListener("click", () => send(Number(valueAt(by("threshold").valueAsNumber).toPrecision(4))));
  by("learned-threshold").addEventListener("click", () => send(null));
}

// Shows the slider of a series, where it has a threshold; a slider that is being moved stays as it is.
export async function drawThreshold(series, mayChange) {
  show(by("threshold-card"), series.threshold !== null);
  show(by("threshold-buttons"), mayChange);
  if (series.threshold === null) return;
  if (name === series.name && now === series.threshold) return;
  name = series.name;
  now = series.threshold;
  told([]);
  const [{ learned }, { periods }] = await Promise.all([api.threshold(name), api.preview(name, now)]);
  if (name !== series.name) return;
  middle = learned ?? now;
  above = Math.max(LEAST, (1.5 * Math.max(now, ...periods.map(([, , peak]) => peak))) / middle);
  by("threshold").value = placeOf(now);
  show(by("learned-threshold"), learned !== null && learned !== now);
  write(now);
  await look(now);
}

function write(value) {
  const text = number(value);
  by("threshold-value").textContent = text;
  by("threshold").setAttribute("aria-valuetext", text);
  by("apply").disabled = placeOf(value) === placeOf(now);
}

async function look(value) {
  running?.abort();
  running = new AbortController();
  try {
    const found = await api.preview(name, value, running.signal);
    by("preview").textContent = sentence(found, value);
    told(placeOf(value) === placeOf(now) ? [] : found.periods);
  } catch (failure) {
    if (failure.name !== "AbortError") by("preview").textContent = failure.message;
  }
}

function sentence({ alarms, per_day: rate, now: present, days, points }, value) {
  if (!points) return "No scores yet to try it on.";
  const span = days >= 1 ? `the last ${times(Math.round(days), "day")}` : `the last ${duration(days)}`;
  const often = rate !== null && days >= 1 ? `, ${number(rate)} a day` : "";
  if (placeOf(value) === placeOf(now)) return `This threshold: ${times(alarms, "alarm")} in ${span}${often}.`;
  return `It would have raised ${times(alarms, "alarm")} in ${span}${often}; the present one ${present.alarms}.`;
}

function duration(days) {
  const hours = days * 24;
  return hours >= 2 ? `${Math.round(hours)} hours` : times(Math.max(1, Math.round(hours * 60)), "minute");
}
