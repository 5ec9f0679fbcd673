// What all parts of the page share: the data, elements, numbers, the look of a method.

const data = JSON.parse(document.getElementById("data").textContent);

// Strings become text nodes, so that no name is ever read as HTML.
function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function shape(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

// Three digits that count, and never an exponent.
function threeDigits(value) {
  const digits = value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

function showNumber(value, format) {
  return isNumber(value) ? format(value) : "–";
}

const fixed = (digits) => (value) => value.toFixed(digits);

// Dark enough on white, and mostly apart to the colour-blind; the marker tells methods apart as well.
const COLOURS = [
  "#0060a8",
  "#c44e00",
  "#00805a",
  "#a8327d",
  "#7a5c00",
  "#5b46b5",
  "#3f3f3f",
  "#b3261e",
  "#008aa3",
  "#5f7f00",
];

// Of corners around a point, for a radius of 1.
const polygon = (corners) => (r) => `M${corners.map(([x, y]) => `${x * r},${y * r}`).join("L")}z`;

const plusStrokes = (a) => `h${a}v${a}h${a}v${a}h${-a}v${a}h${-a}v${-a}h${-a}v${-a}h${a}`;

const MARKERS = [
  (r) => `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0z`,
  (r) => `M${-r},${-r}h${2 * r}v${2 * r}h${-2 * r}z`,
  (r) => `M0,${-1.2 * r}L${1.2 * r},${r}H${-1.2 * r}z`,
  (r) => `M0,${-1.35 * r}L${1.35 * r},0L0,${1.35 * r}L${-1.35 * r},0z`,
  (r) => `M0,${1.2 * r}L${1.2 * r},${-r}H${-1.2 * r}z`,
  (r) => `M${-0.4 * r},${-1.2 * r}${plusStrokes(0.8 * r)}z`,
  polygon([[0, -1.3], [1.2, -0.4], [0.8, 1], [-0.8, 1], [-1.2, -0.4]]),
  polygon([
    [0.57, 0], [1.13, 0.57], [0.57, 1.13], [0, 0.57], [-0.57, 1.13], [-1.13, 0.57],
    [-0.57, 0], [-1.13, -0.57], [-0.57, -1.13], [0, -0.57], [0.57, -1.13], [1.13, -0.57],
  ]),
  polygon([[-1, -1.2], [1.2, 0], [-1, 1.2]]),
  polygon([[1, -1.2], [-1.2, 0], [1, 1.2]]),
];

const colourOf = (method) => COLOURS[data.methods.indexOf(method) % COLOURS.length];

function marker(method, radius, attributes = {}) {
  const path = MARKERS[data.methods.indexOf(method) % MARKERS.length](radius);
  return shape("path", { d: path, fill: colourOf(method), ...attributes });
}

// A method's name with the marker that it has in the plots.
function methodLabel(method) {
  const sign = shape("svg", { class: "sign", viewBox: "-7 -7 14 14", "aria-hidden": "true" }, marker(method, 4.6));
  return element("span", { class: "method" }, sign, method);
}

const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

function sceneHash(scene, views) {
  return `#${new URLSearchParams({ scene, views })}`;
}

// A row of buttons of which one is pressed.
function choice(label, options, current, choose) {
  const buttons = options.map(([value, text]) =>
    element(
      "button",
      { type: "button", "aria-pressed": String(value === current), onclick: () => choose(value) },
      text,
    ),
  );
  return element(
    "div",
    { class: "choice", role: "group", "aria-label": label },
    element("span", {}, label),
    ...buttons,
  );
}

function dropDown(label, options, current, choose) {
  const select = element(
    "select",
    { onchange: (event) => choose(event.target.value) },
    ...options.map(([value, text]) => element("option", { value, selected: value === current ? "" : null }, text)),
  );
  return element("label", { class: "field" }, element("span", {}, label), select);
}

// Draw again, and leave the focus and what was scrolled sideways as they were.
function redrawn(root, draw) {
  const reachable = () => [...root.querySelectorAll("a, button, input, select")];
  const at = reachable().indexOf(document.activeElement);
  const scrolled = [...root.querySelectorAll(".scroll")].map((box) => box.scrollLeft);
  draw();
  root.querySelectorAll(".scroll").forEach((box, index) => {
    box.scrollLeft = scrolled[index] || 0;
  });
  if (at >= 0 && reachable()[at]) reachable()[at].focus({ preventScroll: true });
}
