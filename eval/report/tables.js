// Tables of means that sort, and the table of scenes.

const COLUMNS = [
  { key: "psnr", label: "PSNR", unit: "dB", better: 1, show: fixed(2) },
  { key: "ssim", label: "SSIM", unit: "11-tap Gaussian", better: 1, show: fixed(3) },
  { key: "ssim_uniform7", label: "SSIM", unit: "7×7 uniform", better: 1, show: fixed(3) },
  { key: "lpips", label: "LPIPS", unit: "", better: -1, show: fixed(3) },
  { key: "depth_abs_rel", label: "Depth", unit: "AbsRel", better: -1, show: fixed(3), optional: true },
  { key: "depth_delta1", label: "Depth", unit: "δ < 1.25", better: 1, show: fixed(3), optional: true },
  { key: "seconds", label: "Time", unit: "s", better: -1, show: threeDigits },
  { key: "processor_seconds", label: "CPU time", unit: "s", better: -1, show: threeDigits, optional: true },
  { key: "peak_memory_bytes", label: "Peak memory", unit: "MB", better: -1, show: (value) => threeDigits(value / 1e6) },
  { key: "num_gaussians", label: "Gaussians", unit: "", show: (value) => Math.round(value).toLocaleString("en") },
  { key: "scenes", label: "Scenes", unit: "", show: fixed(0) },
];

// Means over captures and procedural scenes together tell of neither.
const FIRST_GROUP = "captures" in data.groups ? "captures" : "all";
const sorting = { key: null, direction: 1 };
const state = { group: FIRST_GROUP, views: data.views[data.views.length - 1] };

function sorted(rows) {
  if (sorting.key === null) return rows;
  const value = (row) => (sorting.key === "method" ? row.method : row[sorting.key]);
  const there = rows.filter((row) => value(row) !== null);
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);
  there.sort((a, b) => sorting.direction * compare(value(a), value(b)));
  return [...there, ...rows.filter((row) => value(row) === null)];
}

function sortBy(column) {
  const first = column.better === 1 ? -1 : 1;
  sorting.direction = sorting.key === column.key ? -sorting.direction : first;
  sorting.key = column.key;
}

function headCell(column, redraw) {
  const mine = sorting.key === column.key;
  const order = mine ? (sorting.direction > 0 ? "ascending" : "descending") : "none";
  const arrow = element("i", { "aria-hidden": "true" }, mine ? (sorting.direction > 0 ? "▲" : "▼") : "");
  const sort = () => {
    sortBy(column);
    redraw();
  };
  const unit = column.unit ? element("small", {}, column.unit) : null;
  const button = element("button", { type: "button", onclick: sort }, element("span", {}, column.label, arrow), unit);
  const title = data.variants[column.key] || null;
  return element("th", { scope: "col", "aria-sort": order, "data-key": column.key, title }, button);
}

// Best among the methods that finished as many scenes as any other: means over fewer do not compare.
function bestValue(rows, column) {
  const full = Math.max(...rows.map((row) => row.scenes));
  const values = rows.filter((row) => row.scenes === full && isNumber(row[column.key])).map((row) => row[column.key]);
  return column.better && values.length > 1
    ? Math.max(...values.map((value) => column.better * value)) * column.better
    : null;
}

function scenesCell(row) {
  const words = row.scenes === row.of ? `${row.scenes}` : `${row.scenes} of ${row.of}`;
  const failed = row.failed ? element("em", {}, `${row.failed} failed`) : null;
  return element("td", { "data-key": "scenes", class: row.scenes === row.of ? null : "partial" }, words, failed);
}

function resultTable(rows, columns, caption, redraw) {
  if (!rows.some((row) => row.scenes || row.failed)) {
    return element("div", {}, element("h3", {}, caption), element("p", { class: "note" }, "Nothing has been run yet."));
  }
  const head = [{ key: "method", label: "Method", unit: "" }, ...columns].map((column) => headCell(column, redraw));
  const best = new Map(columns.map((column) => [column.key, bestValue(rows, column)]));
  const body = sorted(rows).map((row) => {
    const cells = columns.map((column) => {
      if (column.key === "scenes") return scenesCell(row);
      const isBest = row[column.key] !== null && row[column.key] === best.get(column.key);
      return element(
        "td",
        { "data-key": column.key, class: isBest ? "best" : null },
        showNumber(row[column.key], column.show),
      );
    });
    const name = element("th", { scope: "row", "data-key": "method" }, methodLabel(row.method));
    return element("tr", { class: row.scenes < row.of ? "partial" : null }, name, ...cells);
  });
  const table = element(
    "table",
    { class: "results" },
    element("caption", {}, caption),
    element("thead", {}, element("tr", {}, ...head)),
    element("tbody", {}, ...body),
  );
  return element("div", { class: "scroll" }, table);
}

const shownColumns = (rows) =>
  COLUMNS.filter((column) => !column.optional || rows.some((row) => isNumber(row[column.key])));

const isScene = (group) => group.startsWith("scene:");

function groupWords(group) {
  if (isScene(group)) return group.slice("scene:".length);
  const count = data.groups[group].length;
  return {
    all: plural(count, "scene"),
    captures: plural(count, "capture"),
    procedural: plural(count, "procedural scene"),
  }[group];
}

// Which scenes the means are over: a kind of scene, or one scene.
function groupChoice(redraw) {
  const choose = (group) => {
    state.group = group;
    redraw();
    drawPlots();
  };
  const sets = ["captures", "procedural", "all"].filter((name) => name in data.groups);
  const names = Object.keys(data.groups)
    .filter(isScene)
    .map((group) => [group, groupWords(group)]);
  return element(
    "div",
    { class: "choices" },
    choice(
      "Mean over",
      sets.map((name) => [name, name === "all" ? `all ${groupWords(name)}` : groupWords(name)]),
      state.group,
      choose,
    ),
    dropDown(
      "or see",
      [[isScene(state.group) ? FIRST_GROUP : state.group, "one scene …"], ...names],
      state.group,
      choose,
    ),
  );
}

function drawResults() {
  const redraw = () => redrawn(document.getElementById("results"), drawResults);
  const tables = data.views.map((views) => {
    const rows = data.rows[state.group].filter((row) => row.views === views);
    const box = resultTable(
      rows,
      shownColumns(data.rows[state.group]),
      `${plural(views, "input view")}, ${isScene(state.group) ? "" : "mean over "}${groupWords(state.group)}`,
      redraw,
    );
    box.firstChild.dataset.views = views;
    return box;
  });
  const notes = ["Bold is best among the methods that finished the most scenes. A click on a heading sorts."];
  const partial = data.rows[state.group].some((row) => row.scenes < row.of);
  if (partial)
    notes.push("Rows in italics are means over fewer scenes than the group has, and do not compare with the others.");
  const withDepth = data.cells.filter((cell) => cell.depth && data.groups[state.group].includes(cell.scene));
  const depthScenes = new Set(withDepth.map((cell) => cell.scene)).size;
  if (depthScenes && depthScenes < data.groups[state.group].length)
    notes.push(`Depth is a mean over the ${plural(depthScenes, "scene")} whose depth is known.`);
  if (data.lpips) notes.push(data.lpips);
  document
    .getElementById("results")
    .replaceChildren(
      element("h2", {}, "Results"),
      groupChoice(redraw),
      ...tables,
      ...notes.map((note) => element("p", { class: "note" }, note)),
    );
}

function cellOf(scene, method, views) {
  return data.cells.find((cell) => cell.scene === scene && cell.method === method && cell.views === views);
}

function drawScenes() {
  const views = state.views;
  const pick = choice(
    "Input views",
    data.views.map((count) => [count, String(count)]),
    views,
    (count) => {
      state.views = count;
      redrawn(document.getElementById("scenes"), drawScenes);
    },
  );
  const head = data.methods.map((method) => element("th", { scope: "col" }, methodLabel(method)));
  const body = data.scenes.map(({ name }) => {
    const values = data.methods.map((method) => cellOf(name, method, views));
    const best = Math.max(...values.map((cell) => (cell && isNumber(cell.psnr) ? cell.psnr : -Infinity)));
    const cells = values.map((cell) => {
      if (!cell) return element("td", { class: "none" }, "–");
      if (cell.status !== "done") return element("td", { class: "failed", title: cell.error }, "failed");
      return element("td", { class: cell.psnr === best ? "best" : null }, showNumber(cell.psnr, fixed(2)));
    });
    const truth = Object.values(data.truths[name] || {})[0];
    const picture = truth ? element("img", { src: data.pictures[truth], alt: "", width: 44, height: 44 }) : null;
    const link = element("a", { href: sceneHash(name, views) }, picture, element("span", {}, name));
    return element("tr", {}, element("th", { scope: "row" }, link), ...cells);
  });
  const table = element(
    "table",
    { class: "scenes" },
    element("caption", {}, `PSNR in dB, ${plural(views, "input view")}`),
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Scene"), ...head)),
    element("tbody", {}, ...body),
  );
  const parts = [
    element("div", { class: "heading" }, element("h2", {}, "Scenes"), pick),
    element(
      "p",
      { class: "note" },
      "A scene's name leads to its pictures: truth and renders side by side, error maps, every method.",
    ),
    element("div", { class: "scroll" }, table),
  ];
  if (data.leftOut)
    parts.push(
      element(
        "p",
        { class: "note" },
        `${plural(data.leftOut, "picture")} did not fit into this file and lie beside it, in renders/.`,
      ),
    );
  document.getElementById("scenes").replaceChildren(...parts);
}
