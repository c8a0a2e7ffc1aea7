"use strict";
// What the page is built from. Text from the bitstream goes into text nodes and attributes only, never into markup.

const data = JSON.parse(document.getElementById("data").textContent);
const KINDS = ["weights", "topology", "names", "headers"];
const SVG = "http://www.w3.org/2000/svg";

function made(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

const el = (tag, attributes = {}, ...children) => made(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) => made(document.createElementNS(SVG, tag), attributes, children);

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
const count = (number) => number.toLocaleString("en");
const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
const share = (part, whole) => `${(100 * part / (whole || 1)).toFixed(Math.abs(part / whole - 0.5) > 0.4 ? 2 : 1)} %`;
const shapeOf = (tensor) => tensor.shape.join("x") || "scalar";
const rate = (tensor) => 8 * sum(tensor.bytes) / (tensor.elements || 1);
const short = (number) => (number && Math.abs(number) < 1e-3 ? number.toExponential(2) : Number(number.toPrecision(3)).toString());
const known = (value) => value !== undefined && value !== null;

function quality(tensor) {
  if (tensor.exact) return "exact";
  if (!known(tensor.sqnr)) return "";
  return tensor.sqnr < -1000 ? "none" : `${tensor.sqnr.toFixed(1)} dB`;
}

// What other parts of the page do when a tensor or a unit is chosen.
const listeners = { tensor: [], unit: [] };
const on = (what, listener) => listeners[what].push(listener);
const choose = (what, value) => listeners[what].forEach((listener) => listener(value));

function tensorLink(tensor) {
  const click = (event) => { event.preventDefault(); choose("tensor", tensor); };
  return el("a", { href: "#levels", click }, tensor.name);
}

function section(id, title, ...children) {
  const heading = el("h2", { id: `${id}-title` }, title);
  document.getElementById("nav").append(el("a", { href: `#${id}` }, title));
  document.getElementById("main").append(el("section", { id, "aria-labelledby": `${id}-title` }, heading, ...children));
}

// Moves among items with the arrow keys; `move` is called with the new place.
function arrows(event, place, length, move) {
  const steps = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, PageDown: 20, PageUp: -20 };
  const target = { Home: 0, End: length - 1 }[event.key] ?? (event.key in steps ? place + steps[event.key] : null);
  if (target === null || !length) return;
  event.preventDefault();
  move(Math.max(0, Math.min(length - 1, target)));
}
