// Two plots with a logarithmic horizontal axis, drawn at the width that there is.

const hidden = new Set();
const HEIGHT = 340;
const MARGIN = { top: 14, right: 22, bottom: 50, left: 56 };

// Steps of 1, 2 or 5 times a power of ten, about `count` of them.
function linearTicks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const ticks = [];
  for (let index = Math.ceil(low / step); index * step <= high + 1e-9; index += 1) ticks.push(index * step);
  return ticks;
}

function decadeTicks(low, high) {
  const factors = Math.log10(high / low) > 2.2 ? [1] : [1, 2, 5];
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    ticks.push(...factors.map((factor) => factor * 10 ** power));
  }
  return ticks.filter((tick) => tick >= low && tick <= high);
}

const seconds = (value) => (value >= 1 ? value.toLocaleString("en") : String(Number(value.toPrecision(2))));

function seriesOf(xKey) {
  const rows = data.rows[state.group].filter((row) => isNumber(row.psnr) && isNumber(row[xKey]) && row[xKey] > 0);
  return data.methods
    .map((method) => ({ method, rows: rows.filter((row) => row.method === method) }))
    .filter((series) => series.rows.length > 0);
}

function axes(svg, frame, x, y, plot) {
  for (const tick of linearTicks(frame.bottom, frame.top, 6)) {
    svg.append(
      shape("line", { class: "grid", x1: MARGIN.left, x2: frame.right, y1: y(tick), y2: y(tick) }),
      shape(
        "text",
        { class: "tick", x: MARGIN.left - 8, y: y(tick) + 4, "text-anchor": "end" },
        String(Number(tick.toFixed(6))),
      ),
    );
  }
  for (const tick of plot.ticks(frame.low, frame.high)) {
    svg.append(
      shape("line", { class: "grid", x1: x(tick), x2: x(tick), y1: MARGIN.top, y2: frame.floor }),
      shape("text", { class: "tick", x: x(tick), y: frame.floor + 18, "text-anchor": "middle" }, plot.show(tick)),
    );
  }
  const middle = (MARGIN.top + frame.floor) / 2;
  svg.append(
    shape("line", { class: "axis", x1: MARGIN.left, x2: frame.right, y1: frame.floor, y2: frame.floor }),
    shape("line", { class: "axis", x1: MARGIN.left, x2: MARGIN.left, y1: MARGIN.top, y2: frame.floor }),
    shape(
      "text",
      { class: "label", x: (MARGIN.left + frame.right) / 2, y: HEIGHT - 8, "text-anchor": "middle" },
      plot.xLabel,
    ),
    shape(
      "text",
      { class: "label", transform: `translate(15 ${middle}) rotate(-90)`, "text-anchor": "middle" },
      "mean PSNR (dB)",
    ),
  );
}

// Put the number of views beside each point, where it hides neither a point nor another number; else leave it out.
function labelPoints(series, x, y, svg) {
  const rows = series.flatMap((one) => one.rows);
  const taken = rows.map((row) => [x(row.seconds) - 6, y(row.psnr) - 6, x(row.seconds) + 6, y(row.psnr) + 6]);
  for (const row of rows) {
    const width = 7 * String(row.views).length;
    const free = [
      [8, -7],
      [8, 12],
      [-8 - width, -7],
      [-8 - width, 12],
      [-width / 2, -9],
      [-width / 2, 17],
    ].find(([dx, dy]) => {
      const [left, base] = [x(row.seconds) + dx, y(row.psnr) + dy];
      const box = [left, base - 9, left + width, base];
      if (taken.some((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3]))
        return false;
      taken.push(box);
      return true;
    });
    if (!free) continue;
    const group = [...svg.querySelectorAll(".series")].find((one) => one.dataset.method === row.method);
    group.append(
      shape("text", { class: "count", x: x(row.seconds) + free[0], y: y(row.psnr) + free[1] }, String(row.views)),
    );
  }
}

function drawSeries(series, x, y, plot) {
  const { method, rows } = series;
  const line = rows
    .map((row, index) => `${index ? "L" : "M"}${x(row[plot.x]).toFixed(1)},${y(row.psnr).toFixed(1)}`)
    .join("");
  const group = shape(
    "g",
    { class: "series", "data-method": method, visibility: hidden.has(method) ? "hidden" : null },
    shape("path", { class: "line", d: line, stroke: colourOf(method) }),
  );
  for (const row of rows) {
    const cost = isNumber(row.seconds) ? `, ${threeDigits(row.seconds)} s` : "";
    const value = `${row.psnr.toFixed(2)} dB${cost} (${plural(row.scenes, "scene")})`;
    const words = `${method}, ${plural(row.views, "view")}: ${value}`;
    const place = `translate(${x(row[plot.x]).toFixed(1)} ${y(row.psnr).toFixed(1)})`;
    // A mean over fewer scenes than the group has is drawn hollow.
    const hollow =
      row.scenes < row.of ? { fill: "#fff", stroke: colourOf(method), "stroke-width": 1.8 } : { stroke: "#fff" };
    const dot = shape(
      "g",
      { class: "point", transform: place },
      shape("title", {}, words),
      shape("circle", { r: 12, fill: "transparent" }),
      marker(method, 4.8, hollow),
    );
    group.append(dot);
  }
  return group;
}

function drawPlot(plot) {
  const series = seriesOf(plot.x);
  const box = document.getElementById(plot.id);
  const width = Math.max(280, box.clientWidth);
  if (!series.length) {
    box.replaceChildren(element("p", { class: "note" }, "Nothing to draw yet."));
    return;
  }
  const rows = series.flatMap((one) => one.rows);
  const xs = rows.map((row) => row[plot.x]);
  const psnrs = rows.map((row) => row.psnr);
  const pad = Math.max(0.5, 0.07 * (Math.max(...psnrs) - Math.min(...psnrs)));
  const frame = {
    low: Math.min(...xs) / plot.room,
    high: Math.max(...xs) * plot.room,
    bottom: Math.min(...psnrs) - pad,
    top: Math.max(...psnrs) + pad,
    right: width - MARGIN.right,
    floor: HEIGHT - MARGIN.bottom,
  };
  const x = (value) =>
    MARGIN.left + ((frame.right - MARGIN.left) * Math.log(value / frame.low)) / Math.log(frame.high / frame.low);
  const y = (value) => frame.floor - ((frame.floor - MARGIN.top) * (value - frame.bottom)) / (frame.top - frame.bottom);
  const svg = shape("svg", {
    width,
    height: HEIGHT,
    viewBox: `0 0 ${width} ${HEIGHT}`,
    role: "img",
    "aria-label": plot.title,
  });
  axes(svg, frame, x, y, plot);
  svg.append(...series.map((one) => drawSeries(one, x, y, plot)));
  if (plot.countLabels) labelPoints(series, x, y, svg);
  box.replaceChildren(svg);
}

const PLOTS = [
  {
    id: "psnr-views",
    title: "PSNR against the number of input views",
    x: "views",
    xLabel: "input views",
    room: 1.12,
    ticks: () => data.views,
    show: String,
    countLabels: false,
  },
  {
    id: "psnr-seconds",
    title: "PSNR against seconds",
    x: "seconds",
    xLabel: "seconds per scene (logarithmic)",
    room: 1.6,
    ticks: decadeTicks,
    show: seconds,
    countLabels: true,
  },
];

function legend() {
  const buttons = data.methods.map((method) => {
    const toggle = (event) => {
      if (!hidden.delete(method)) hidden.add(method);
      event.currentTarget.setAttribute("aria-pressed", String(!hidden.has(method)));
      for (const group of document.querySelectorAll("#plots .series")) {
        if (group.dataset.method === method)
          group.setAttribute("visibility", hidden.has(method) ? "hidden" : "visible");
      }
    };
    return element(
      "button",
      { type: "button", "aria-pressed": String(!hidden.has(method)), onclick: toggle },
      methodLabel(method),
    );
  });
  return element("div", { class: "legend", role: "group", "aria-label": "Methods to show" }, ...buttons);
}

function drawPlots() {
  const figures = PLOTS.map((plot) =>
    element("figure", {}, element("figcaption", {}, plot.title), element("div", { id: plot.id, class: "plot" })),
  );
  const over = isScene(state.group) ? groupWords(state.group) : `Means over ${groupWords(state.group)}`;
  const key = "The small numbers in the second plot are input views. A hollow point is a mean over fewer scenes.";
  document
    .getElementById("plots")
    .replaceChildren(
      element("h2", {}, "Quality, views and time"),
      legend(),
      element("div", { class: "figures" }, ...figures),
      element("p", { class: "note" }, `${over}. ${key}`),
    );
  PLOTS.forEach(drawPlot);
}

let drawnWidth = window.innerWidth;
window.addEventListener("resize", () => {
  if (window.innerWidth === drawnWidth || document.getElementById("overview").hidden) return;
  drawnWidth = window.innerWidth;
  PLOTS.forEach(drawPlot);
});
