// Small helpers. Texts only ever reach the page as text nodes.

export const by = (id) => document.getElementById(id);

export function make(tag, className = "", text = null) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== null) element.textContent = text;
  return element;
}

export function show(element, visible) {
  element.hidden = !visible;
}

export function percent(value) {
  const share = value * 100;
  if (share > 0 && share < 0.1) return "< 0.1 %";
  return share > 99.9 && share < 100 ? "> 99.9 %" : `${share.toFixed(1)} %`;
}

// Percentage points, signed, with a real minus sign.
export function points(value) {
  const amount = Math.abs(value * 100).toFixed(1);
  if (amount === "0.0") return "0.0";
  return (value < 0 ? "\u2212" : "+") + amount;
}

const ENGINES = { onnx: "ONNX Runtime", litert: "LiteRT", torch: "PyTorch" };

export const engineName = ({ engine, engine_version: version }) =>
  [ENGINES[engine] ?? engine, version].filter(Boolean).join(" ");

export const count = (number) => number.toLocaleString("en");

// Files dropped anywhere on the page go to `take`; `zone` lights up while one is held over it.
export function watchDrops(zone, take) {
  let depth = 0;
  const over = (on) => zone.classList.toggle("over", on);
  const holdsFile = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => {
    if (holdsFile(event)) over((depth += 1) > 0);
  });
  addEventListener("dragleave", (event) => {
    if (holdsFile(event)) over((depth = Math.max(0, depth - 1)) > 0);
  });
  addEventListener("dragover", (event) => {
    if (holdsFile(event)) event.preventDefault();
  });
  addEventListener("drop", (event) => {
    if (!holdsFile(event)) return;
    event.preventDefault();
    over((depth = 0) > 0);
    take([...event.dataTransfer.files]);
  });
}
