// Two pictures over each other with a slider, and what lies between them.

const ERROR_RANGE = 0.3;
// Every eighth of matplotlib's inferno.
const INFERNO = [
  [0, 0, 4],
  [31, 12, 72],
  [85, 15, 109],
  [136, 34, 106],
  [186, 54, 85],
  [227, 89, 51],
  [249, 140, 10],
  [249, 201, 50],
  [252, 255, 164],
];

function inferno(value) {
  const place = Math.min(Math.max(value, 0), 1) * (INFERNO.length - 1);
  const index = Math.min(Math.floor(place), INFERNO.length - 2);
  return INFERNO[index].map((low, channel) => low + (INFERNO[index + 1][channel] - low) * (place - index));
}

const decoded = new Map();

// The pixels of a picture; each is decoded once.
function pixelsOf(key) {
  if (!decoded.has(key)) {
    const image = new Image();
    image.src = data.pictures[key];
    decoded.set(
      key,
      image.decode().then(() => {
        const canvas = element("canvas", { width: image.naturalWidth, height: image.naturalHeight });
        const context = canvas.getContext("2d", { willReadFrequently: true });
        context.drawImage(image, 0, 0);
        return context.getImageData(0, 0, canvas.width, canvas.height);
      }),
    );
  }
  return decoded.get(key);
}

// Draws the mean absolute difference over the channels (0..1); returns the PSNR between the two in dB.
async function drawError(canvas, keyA, keyB) {
  const [a, b] = await Promise.all([pixelsOf(keyA), pixelsOf(keyB)]);
  canvas.width = a.width;
  canvas.height = a.height;
  const drawn = new ImageData(a.width, a.height);
  let squares = 0;
  for (let at = 0; at < a.data.length; at += 4) {
    let sum = 0;
    for (let channel = at; channel < at + 3; channel += 1) {
      const difference = Math.abs(a.data[channel] - b.data[channel]) / 255;
      sum += difference;
      squares += difference * difference;
    }
    drawn.data.set([...inferno(sum / 3 / ERROR_RANGE), 255], at);
  }
  canvas.getContext("2d").putImageData(drawn, 0, 0);
  return -10 * Math.log10(squares / (0.75 * a.data.length));
}

function errorScale() {
  const stops = INFERNO.map((colour, index) => `rgb(${colour}) ${(100 * index) / (INFERNO.length - 1)}%`);
  return element(
    "div",
    { class: "scale" },
    element("span", {}, "0"),
    element("i", { style: `background: linear-gradient(90deg, ${stops.join(", ")})` }),
    element("span", {}, `≥ ${ERROR_RANGE}`),
    element("small", {}, "inferno; mean of |R|, |G|, |B| differences, colours 0 to 1"),
  );
}

// The left picture lies on the right one and is cut off at the slider.
function comparison(left, right) {
  const under = element("img", { src: data.pictures[right.key], alt: right.name, draggable: "false" });
  const over = element("img", { src: data.pictures[left.key], alt: left.name, class: "over", draggable: "false" });
  const line = element("i", { class: "line", "aria-hidden": "true" });
  const slider = element("input", {
    type: "range",
    min: 0,
    max: 100,
    step: 1,
    value: 50,
    "aria-label": `How much of ${left.name} covers ${right.name}, in percent`,
  });
  const move = () => {
    over.style.clipPath = `inset(0 ${100 - slider.value}% 0 0)`;
    line.style.left = `${slider.value}%`;
  };
  slider.addEventListener("input", move);
  move();
  return element(
    "div",
    { class: "comparison" },
    under,
    over,
    line,
    element("b", { class: "left" }, left.name),
    element("b", { class: "right" }, right.name),
    slider,
  );
}
