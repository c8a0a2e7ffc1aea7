// Charts as SVG. Each can be walked through with the arrow keys; what is there is read out below it.

const W = Math.max(340, Math.min(1160, document.getElementById("main").clientWidth - 32));
const [H, LEFT, BOTTOM, TOP, RIGHT] = [320, 58, 40, 14, 16];

function ticks(low, high, wanted = 6) {
  const rough = (high - low) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const marks = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step / 1e6; at += step) marks.push(Number(at.toPrecision(10)));
  return marks;
}

function bounds(values) {
  const finite = values.filter((value) => Math.abs(value) < 1000);
  const [low, high] = [Math.min(...finite), Math.max(...finite)];
  if (!finite.length) return [0, 1];
  const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  return [low - room, high + room];
}

const limited = (value, [low, high]) => Math.max(low, Math.min(high, value));
const across = (value, range) => LEFT + (W - LEFT - RIGHT) * (limited(value, range) - range[0]) / (range[1] - range[0]);
const up = (value, range) => H - BOTTOM - (H - BOTTOM - TOP) * (limited(value, range) - range[0]) / (range[1] - range[0]);

function axes(xs, ys, xTitle, yTitle, xText = String) {
  const lines = [];
  for (const x of ticks(...xs, W / 110)) {
    lines.push(svg("line", { class: "grid", x1: across(x, xs), x2: across(x, xs), y1: TOP, y2: H - BOTTOM }));
    lines.push(svg("text", { x: across(x, xs), y: H - BOTTOM + 16, "text-anchor": "middle" }, xText(x)));
  }
  for (const y of ticks(...ys)) {
    lines.push(svg("line", { class: "grid", x1: LEFT, x2: W - RIGHT, y1: up(y, ys), y2: up(y, ys) }));
    lines.push(svg("text", { x: LEFT - 6, y: up(y, ys) + 4, "text-anchor": "end" }, count(y)));
  }
  lines.push(svg("line", { class: "axis", x1: LEFT, x2: W - RIGHT, y1: H - BOTTOM, y2: H - BOTTOM }));
  lines.push(svg("text", { x: (LEFT + W) / 2, y: H - 6, "text-anchor": "middle" }, xTitle));
  lines.push(svg("text", { x: 14, y: H / 2, "text-anchor": "middle", transform: `rotate(-90 14 ${H / 2})` }, yTitle));
  return lines;
}

// Points {x, y, r, color, text, pick}; lines are lists of points that belong together.
function scatter({ points, lines = [], xTitle, yTitle, label, xText }) {
  if (!points.length) return [el("p", { class: "soft" }, "There is nothing to draw here.")];
  const xs = bounds(points.map((point) => point.x));
  const ys = bounds(points.map((point) => point.y));
  const ordered = [...points].sort((a, b) => a.x - b.x);
  const ring = svg("circle", { class: "ring", r: 9, cx: -99, cy: -99 });
  const out = el("output", { "aria-live": "polite" }, "Arrow keys walk through the points, Enter shows the tensor.");
  const dots = ordered.map((point) =>
    svg("circle", { class: `dot f${point.color}`, cx: across(point.x, xs), cy: up(point.y, ys), r: point.r ?? 4,
      mouseenter: () => visit(ordered.indexOf(point)), click: () => point.pick?.() }, svg("title", {}, point.text)));
  const paths = lines.map((line) =>
    svg("polyline", { class: `line k${line[0].color}`, points: line.map((p) => `${across(p.x, xs)},${up(p.y, ys)}`).join(" ") }));
  let place = -1;

  function visit(next) {
    place = next;
    const point = ordered[place];
    ring.setAttribute("cx", across(point.x, xs));
    ring.setAttribute("cy", up(point.y, ys));
    out.textContent = point.text;
  }

  const chart = svg("svg", { class: "chart", viewBox: `0 0 ${W} ${H}`, role: "img", tabindex: 0, "aria-label": `${label}. ${plural(points.length, "point")}.` },
    axes(xs, ys, xTitle, yTitle, xText), paths, dots, ring);
  chart.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && place >= 0) ordered[place].pick?.();
    arrows(event, place, ordered.length, visit);
  });
  return [el("figure", {}, chart, out)];
}

// Bars {from, to, count, text}: a histogram.
function bars({ entries: list, label, xTitle }) {
  const xs = [list[0].from - 0.5, list[list.length - 1].to + 0.5];
  const ys = [0, Math.max(...list.map((bar) => bar.count)) * 1.05 || 1];
  const out = el("output", { "aria-live": "polite" }, "Arrow keys walk through the bars.");
  const columns = list.map((bar, place) => {
    const [left, right] = [across(bar.from - 0.5, xs), across(bar.to + 0.5, xs)];
    return svg("rect", { class: "f0", x: left, width: Math.max(0.5, right - left - 0.5), y: up(bar.count, ys), height: H - BOTTOM - up(bar.count, ys),
      mouseenter: () => visit(place) }, svg("title", {}, bar.text));
  });
  let place = -1;

  function visit(next) {
    columns[place]?.setAttribute("class", "f0");
    place = next;
    columns[place].setAttribute("class", "f1");
    out.textContent = list[place].text;
  }

  const chart = svg("svg", { class: "chart", viewBox: `0 0 ${W} ${H}`, role: "img", tabindex: 0, "aria-label": label }, axes(xs, ys, xTitle, "count"), columns);
  chart.addEventListener("keydown", (event) => arrows(event, place, list.length, visit));
  return el("figure", {}, chart, out);
}

function histogram(tensor) {
  const [first, width, counts, below, above, zeros, entropy] = tensor.levels;
  const list = counts.map((number, place) => {
    const [from, to] = [first + place * width, first + place * width + width - 1];
    return { from, to, count: number, text: `${from === to ? `level ${from}` : `levels ${from} to ${to}`}: ${plural(number, "time")}` };
  });
  const chart = bars({ entries: list, label: `Histogram of the levels of ${tensor.name}`, xTitle: "level" });
  const beside = below + above ? ` ${plural(below, "level")} below and ${count(above)} above this range.` : "";
  return [chart, el("p", {}, `${share(zeros, tensor.elements)} of the levels are zero. Taken one by one, the integers that are coded have an entropy of `
    + `${entropy.toFixed(2)} bits; with contexts they take ${(8 * tensor.bytes[0] / tensor.elements).toFixed(2)} bits.${beside}`)];
}
