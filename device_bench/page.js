"use strict";
document.body.classList.remove("no-script");
const tip = document.getElementById("tip");

// A label beside the pointer, or under the focused mark. Text only: nothing from the data becomes markup.
function show(mark, x, y) {
  const [name, ...rest] = mark.dataset.tip.split("\n");
  const head = document.createElement("b");
  head.textContent = name;
  tip.replaceChildren(head, rest.join("\n"));
  tip.hidden = false;
  const left = Math.max(12, Math.min(x + 14, document.documentElement.clientWidth - tip.offsetWidth - 12));
  const above = y - tip.offsetHeight - 14;
  tip.style.left = left + window.scrollX + "px";
  tip.style.top = (above > 8 ? above : y + 18) + window.scrollY + "px";
  light(mark);
}
function hide() {
  tip.hidden = true;
  document.querySelectorAll(".on").forEach((mark) => mark.classList.remove("on"));
}
// The same row wherever it is drawn.
function light(mark) {
  document.querySelectorAll(".on").forEach((other) => other.classList.remove("on"));
  document.querySelectorAll(`[data-key="${CSS.escape(mark.dataset.key)}"]`).forEach((other) => other.classList.add("on"));
}
document.querySelectorAll("[data-tip]").forEach((mark) => {
  mark.addEventListener("pointermove", (event) => show(mark, event.clientX, event.clientY));
  mark.addEventListener("pointerdown", (event) => show(mark, event.clientX, event.clientY));
  mark.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hide());
  mark.addEventListener("focus", () => {
    const box = (mark.querySelector(".disc, .p50") || mark).getBoundingClientRect();
    show(mark, box.right, box.top);
  });
  mark.addEventListener("blur", hide);
});
document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
document.addEventListener("pointerdown", (event) => event.target.closest("[data-tip]") || hide());

// With or without tokenization: the same switch for drawings and table.
function choose(device, wanted) {
  device.querySelectorAll("[data-tokenization]").forEach((part) => {
    part.hidden = part.dataset.tokenization !== wanted;
  });
  device.querySelectorAll(".switch button").forEach((button) => {
    button.setAttribute("aria-pressed", String(button.value === wanted));
  });
}
document.querySelectorAll(".device").forEach((device) => {
  const buttons = device.querySelectorAll(".switch button");
  buttons.forEach((button) => button.addEventListener("click", () => choose(device, button.value)));
  if (buttons.length) choose(device, buttons[0].value);
});

function sort(table, column, direction) {
  const body = table.tBodies[0];
  const value = (row) => row.cells[column].dataset.value;
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === "" || y === "") return (x === "") - (y === ""); // the unknown stay last
    const both = Number(x) - Number(y);
    return direction * (Number.isNaN(both) ? x.localeCompare(y) : both);
  });
  body.append(...rows);
  [...table.tHead.rows[0].cells].forEach((head, index) => {
    if (index === column) head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
    else head.removeAttribute("aria-sort");
  });
}
document.querySelectorAll("table:not(.plain)").forEach((table) => {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const best = head.dataset.best === "high" ? -1 : 1;
      const now = { ascending: 1, descending: -1 }[head.getAttribute("aria-sort")];
      sort(table, column, now ? -now : best);
    });
  });
  const select = table.closest(".card").querySelector(".sorter select");
  select.addEventListener("change", () => {
    const head = table.tHead.rows[0].cells[select.value];
    sort(table, Number(select.value), head.dataset.best === "high" ? -1 : 1);
  });
});

// Filters: what is unchecked goes from drawings and tables, and the fronts are drawn anew.
const boxes = [...document.querySelectorAll(".filters input")];
function refront(drawing) {
  const front = drawing.querySelector(".front");
  if (!front) return;
  const at = (point) => ["cx", "cy"].map((name) => Number(point.querySelector(".disc").getAttribute(name)));
  const points = [...drawing.querySelectorAll(".point:not(.filtered)")].map((point) => [point, ...at(point)]);
  points.sort((a, b) => a[1] - b[1] || a[2] - b[2]);
  let highest = Infinity;
  const corners = [];
  points.forEach(([point, x, y]) => {
    point.classList.toggle("on-front", y < highest);
    if (y >= highest) return;
    if (corners.length) corners.push([x, highest]);
    corners.push([x, y]);
    highest = y;
  });
  front.setAttribute("d", corners.length ? "M" + corners.map((corner) => corner.join(",")).join("L") : "");
}
function filter() {
  const off = boxes.filter((box) => !box.checked);
  document.querySelectorAll("[data-device],[data-engine]").forEach((part) => {
    part.classList.toggle("filtered", off.some((box) => part.dataset[box.name] === box.value));
  });
  document.querySelectorAll(".pareto").forEach(refront);
}
boxes.forEach((box) => box.addEventListener("change", filter));
document.querySelectorAll(".filters").forEach((form) => form.addEventListener("submit", (event) => event.preventDefault()));
document.querySelectorAll(".measure select").forEach((select) => {
  select.addEventListener("change", () => {
    select.closest("figure").querySelectorAll("[data-measure]").forEach((part) => {
      part.hidden = part.dataset.measure !== select.value;
    });
  });
});
