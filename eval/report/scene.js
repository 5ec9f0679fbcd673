// The page of one scene at one number of input views.

const TRUTH = "";
const chosen = { target: null, left: TRUTH, right: null };

const nameOf = (method) => (method === TRUTH ? "truth" : method);

function pictureOf(scene, method, views, target) {
  if (method === TRUTH) return (data.truths[scene] || {})[target];
  const cell = cellOf(scene, method, views);
  return cell && cell.pictures[target];
}

function targetsOf(scene, views) {
  const cells = data.cells.filter((cell) => cell.scene === scene && cell.views === views);
  return [...new Set(cells.flatMap((cell) => Object.keys(cell.pictures)))];
}

// Fall back on what is there: the first held-out view, truth against the method that is best at it.
function settle(scene, views) {
  const targets = targetsOf(scene, views);
  if (!targets.includes(chosen.target)) chosen.target = targets.length ? targets[0] : null;
  const there = [TRUTH, ...data.methods].filter((method) => pictureOf(scene, method, views, chosen.target));
  const psnr = (method) =>
    method === TRUTH ? -Infinity : (cellOf(scene, method, views).each[chosen.target] ?? -Infinity);
  if (!there.includes(chosen.left)) chosen.left = there[0] ?? TRUTH;
  if (!there.includes(chosen.right)) chosen.right = [...there].sort((a, b) => psnr(b) - psnr(a))[0] ?? null;
  return { targets, there };
}

function psnrWords(scene, method, views) {
  const cell = cellOf(scene, method, views);
  const value = cell && cell.each[chosen.target];
  return isNumber(value) ? `${value.toFixed(2)} dB` : "";
}

function gallery(scene, views, there, redraw) {
  const [height, width] = data.scenes.find((one) => one.name === scene).image_size || [1, 1];
  const truth = pictureOf(scene, TRUTH, views, chosen.target);
  const tiles = there.map((method) => {
    const key = pictureOf(scene, method, views, chosen.target);
    const image = element("img", { src: data.pictures[key], alt: `${nameOf(method)}, view ${chosen.target}` });
    if (method === TRUTH) {
      const shaped = element("div", { class: "blank", style: `aspect-ratio: ${width} / ${height}` });
      return element("div", { class: "tile" }, image, shaped, element("span", {}, "truth"));
    }
    const canvas = element("canvas", { role: "img", "aria-label": `error of ${method}` });
    if (truth) drawError(canvas, truth, key);
    const pick = () => {
      chosen.right = method;
      chosen.left = TRUTH;
      redraw();
    };
    return element(
      "button",
      { class: "tile", type: "button", "aria-pressed": String(method === chosen.right), onclick: pick },
      image,
      canvas,
      methodLabel(method),
      element("small", {}, psnrWords(scene, method, views)),
    );
  });
  return element("div", { class: "gallery" }, ...tiles);
}

function pair(scene, views, there, redraw) {
  const options = there.map((method) => [method, nameOf(method)]);
  const choose = (side) => (method) => {
    chosen[side] = method;
    redraw();
  };
  const [left, right] = ["left", "right"].map((side) => ({
    name: nameOf(chosen[side]),
    key: pictureOf(scene, chosen[side], views, chosen.target),
  }));
  const canvas = element("canvas", {
    class: "error",
    role: "img",
    "aria-label": `difference of ${left.name} and ${right.name}`,
  });
  const between = element("span", {}, "");
  drawError(canvas, left.key, right.key).then((psnr) => {
    between.textContent = Number.isFinite(psnr) ? `${psnr.toFixed(2)} dB PSNR between these two` : "the same picture";
  });
  return element(
    "div",
    { class: "pair" },
    element(
      "div",
      {},
      element(
        "div",
        { class: "fields" },
        dropDown("Left", options, chosen.left, choose("left")),
        dropDown("Right", options, chosen.right, choose("right")),
      ),
      comparison(left, right),
      element("p", { class: "note" }, "Drag, or use the arrow keys."),
    ),
    element(
      "div",
      {},
      element("div", { class: "fields" }, element("p", {}, `Difference of ${left.name} and ${right.name}`)),
      element("div", { class: "errorbox" }, canvas),
      errorScale(),
      element("p", { class: "note" }, between),
    ),
  );
}

function failuresOf(scene, views) {
  const failed = data.cells.filter((cell) => cell.scene === scene && cell.views === views && cell.status !== "done");
  return failed.map((cell) =>
    element("p", { class: "notice" }, `${cell.method} failed: ${cell.error || "no reason given"}`),
  );
}

function facts(scene, views) {
  const about = data.scenes.find((one) => one.name === scene);
  const cell = data.cells.find((one) => one.scene === scene && one.views === views) || {};
  const parts = [];
  if (about.protocol) parts.push(`protocol ${about.protocol}`);
  if (about.image_size) parts.push(`${about.image_size[1]} × ${about.image_size[0]} pixels`);
  if (about.num_views) parts.push(`${about.num_views} views in all`);
  if (cell.inputs) parts.push(`inputs ${cell.inputs.join(", ")}`);
  if (cell.targets) parts.push(`held out ${cell.targets.join(", ")}`);
  return element("p", { class: "facts" }, parts.join(" · "));
}

function neighbours(scene, views) {
  const names = data.scenes.map((one) => one.name);
  const at = names.indexOf(scene);
  const link = (name, text) => (name === undefined ? null : element("a", { href: sceneHash(name, views) }, text(name)));
  return element(
    "nav",
    { class: "neighbours" },
    element("a", { href: "#" }, "← All results"),
    element(
      "span",
      {},
      link(names[at - 1], (name) => `‹ ${name}`),
      link(names[at + 1], (name) => `${name} ›`),
    ),
  );
}

function drawScene(scene, views) {
  const page = document.getElementById("scene");
  const redraw = () => redrawn(page, () => drawScene(scene, views));
  const { targets, there } = settle(scene, views);
  const rows = data.rows[`scene:${scene}`].filter((row) => row.views === views);
  const columns = shownColumns(rows).filter((column) => column.key !== "scenes");
  const counts = choice(
    "Input views",
    data.views.map((count) => [count, String(count)]),
    views,
    (count) => {
      location.hash = sceneHash(scene, count);
    },
  );
  const heldOut = choice(
    "Held-out view",
    targets.map((target) => [target, target]),
    chosen.target,
    (target) => {
      chosen.target = target;
      redraw();
    },
  );
  const pictures =
    there.length > 1
      ? [
          pair(scene, views, there, redraw),
          element("h3", {}, "All methods, with the error against the truth"),
          gallery(scene, views, there, redraw),
        ]
      : [element("p", { class: "notice" }, "There are no pictures of this scene at this number of views.")];
  page.replaceChildren(
    neighbours(scene, views),
    element("h1", { tabindex: -1 }, scene),
    facts(scene, views),
    ...failuresOf(scene, views),
    element("div", { class: "choices" }, counts, targets.length ? heldOut : null),
    ...pictures,
    resultTable(rows, columns, `${scene}, ${plural(views, "input view")}: mean over its held-out views`, redraw),
  );
}
