// The list of series with their states.

import { by, make, show } from "/look/dom.js";
import { number } from "./format.js";

const MOST = 200; // rows that are drawn; the rest is found by its name
const ORDER = { alarm: 0, silent: 1, learning: 2, normal: 3 };
const WORDS = { alarm: "alarm", silent: "no points", learning: "learning", normal: "normal" };

export const stateWord = (state) => WORDS[state];

let rows = new Map();

// `choose` is called with a name.
export function drawList(series, chosen, choose) {
  const wanted = by("search").value.trim().toLowerCase();
  show(by("search"), series.length > 8);
  const found = series
    .filter(({ name }) => name.toLowerCase().includes(wanted))
    .sort((one, other) => ORDER[one.state] - ORDER[other.state] || (one.name < other.name ? -1 : 1));
  const alarms = series.filter(({ state }) => state === "alarm").length;
  const hidden = found.length > MOST ? `, ${MOST} shown` : "";
  by("series-count").textContent = `${series.length}${hidden}${alarms ? ` · ${alarms} in alarm` : ""}`;
  const drawn = found.slice(0, MOST).map((one) => row(one, one.name === chosen, choose));
  const before = [...by("series").children];
  if (before.length !== drawn.length || before.some((item, place) => item !== drawn[place])) {
    const focused = document.activeElement;
    by("series").replaceChildren(...drawn);
    if (drawn.some((item) => item.contains(focused))) focused.focus();
  }
  const names = new Set(series.map(({ name }) => name));
  rows = new Map([...rows].filter(([name]) => names.has(name)));
}

function row(one, chosen, choose) {
  let item = rows.get(one.name);
  if (!item) {
    item = make("li");
    const button = make("button");
    button.type = "button";
    button.append(make("span", "dot"), make("span", "name", one.name), make("span", "value"), make("span", "about"));
    button.title = one.name;
    button.addEventListener("click", () => choose(one.name));
    item.append(button);
    rows.set(one.name, item);
  }
  const button = item.firstChild;
  button.className = `row is-${one.state}`;
  button.setAttribute("aria-current", String(chosen));
  const [, , value, about] = button.children;
  set(value, one.values ? one.values.slice(0, 2).map(number).join("  ") + (one.values.length > 2 ? " …" : "") : "");
  const share = Math.min(100, Math.floor((100 * one.points) / one.warm_up));
  set(about, one.state === "learning" ? `learning, ${share} %` : WORDS[one.state]);
  return item;
}

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
