// The page, section by section.

const [first, ...others] = data.streams;

function summary() {
  const total = sum(first.bytes);
  const parts = [`${count(total)} bytes`];
  if (first.before) parts.push(`${share(total, first.before)} of ${data.original} (${count(first.before)} bytes)`);
  parts.push(plural(first.tensors.length, "tensor"), `${count(first.weights)} weights`);
  if (first.weights) parts.push(`${(8 * total / first.weights).toFixed(3)} bits per weight`);
  if (known(first.sqnr)) parts.push(`SQNR ${first.sqnr.toFixed(1)} dB`);
  if (first.topology) parts.push(`topology ${first.topology}`);
  document.title = `NNC report: ${first.label}`;
  document.getElementById("title").textContent = document.title;
  document.getElementById("summary").textContent = parts.join(" · ");
}

function ranked(tensors, text) {
  return el("ol", {}, tensors.map((tensor) => el("li", {}, tensorLink(tensor), ` ${text(tensor)}`)));
}

function exactList() {
  const reasons = new Map();
  for (const tensor of first.tensors.filter((t) => t.exact)) {
    reasons.set(tensor.exact, [...reasons.get(tensor.exact) ?? [], tensor]);
  }
  if (!reasons.size) return el("p", {}, "Nothing.");
  return el("ul", {}, [...reasons].map(([why, tensors]) => {
    const names = el("ul", {}, tensors.map((tensor) => el("li", {}, tensorLink(tensor))));
    return el("li", {}, tensors.length > 3
      ? el("details", {}, el("summary", {}, `${plural(tensors.length, "tensor")}: ${why}`), names)
      : [`${plural(tensors.length, "tensor")}: ${why}`, names]);
  }));
}

function glance() {
  const largest = [...first.tensors].sort((a, b) => sum(b.bytes) - sum(a.bytes)).slice(0, 5);
  const worst = first.tensors.filter((t) => known(t.sqnr)).sort((a, b) => a.sqnr - b.sqnr).slice(0, 5);
  const total = sum(first.bytes);
  const card = (id, title, content) => el("div", { class: "card", id }, el("h3", {}, title), content);
  const unknown = el("p", {}, data.original ? "Every tensor is exact." : "Unknown without the model: nnc report FILE.nnr ORIGINAL");
  const wrong = first.tensors.filter((t) => t.problem);
  section("glance", "At a glance", el("div", { class: "cards" },
    card("largest", "Most bytes", ranked(largest, (t) => `${count(sum(t.bytes))} bytes, ${share(sum(t.bytes), total)}`)),
    card("worst", "Lowest SQNR", worst.length ? ranked(worst, quality) : unknown),
    card("exact", "Kept exact", exactList()),
    wrong.length ? card("problems", "Problems", ranked(wrong.slice(0, 20), (t) => t.problem)) : null));
}

function whereBytesGo() {
  const total = sum(first.bytes);
  const bar = el("div", { class: "bar", role: "img", "aria-label": KINDS.map((kind, i) => `${kind} ${share(first.bytes[i], total)}`).join(", ") },
    KINDS.map((kind, i) => {
      const part = el("span", { class: `c${i}`, title: kind });
      part.style.width = `${100 * first.bytes[i] / total}%`;
      return part;
    }));
  const legend = el("ul", { class: "legend" }, KINDS.map((kind, i) =>
    el("li", {}, el("span", { class: `swatch c${i}` }), `${kind}: ${count(first.bytes[i])} bytes, ${share(first.bytes[i], total)}`)));
  section("bytes", "Where the bytes go", bar, legend, treemap(first));
}

const described = (tensor) => `${tensor.name}: ${shapeOf(tensor)}, ${count(sum(tensor.bytes))} bytes, ${rate(tensor).toFixed(2)} bits per weight`
  + `${quality(tensor) ? `, ${quality(tensor)}` : ""}${tensor.lost ? `, ${(100 * tensor.lost).toFixed(2)} % of the values became zero` : ""}`
  + `${tensor.zeros ? `, ${count(tensor.zeros)} zeros changed` : ""}`;

const NOT_KNOWN = "Errors are known with the original model: nnc report FILE.nnr ORIGINAL.";
const noisy = (stream) => stream.tensors.filter((t) => known(t.sqnr));

function errors() {
  if (!data.original) { section("errors", "Error by layer", el("p", {}, NOT_KNOWN)); return; }
  const points = noisy(first).map((t) => ({ x: first.tensors.indexOf(t), y: t.sqnr, color: t.problem ? 4 : t.shape.length > 1 ? 0 : 1, r: t.shape.length > 1 ? 5 : 3, text: described(t), pick: () => choose("tensor", t) }));
  const lost = first.tensors.filter((t) => t.lost).length;
  const changed = first.tensors.filter((t) => t.zeros).length;
  section("errors", "Error by layer",
    el("p", {}, `Tensors in their order; blue with several dimensions, orange with one. ${plural(lost, "tensor")} lost values that became zero; zeros changed in ${changed ? plural(changed, "tensor") : "none"}.`),
    scatter({ points, xTitle: "place in the bitstream", yTitle: "SQNR (dB)", label: "Signal-to-noise ratio of each tensor in order" }));
}

function ratesAndErrors() {
  if (!data.original) return;
  const largest = Math.max(...first.tensors.map((t) => sum(t.bytes)));
  const points = noisy(first).map((t) => ({ x: rate(t), y: t.sqnr, color: t.shape.length > 1 ? 0 : 1, r: 3 + 9 * Math.sqrt(sum(t.bytes) / largest), text: described(t), pick: () => choose("tensor", t) }));
  section("rate", "Rate against error", el("p", {}, "Each tensor by what it takes and what it lost; the area of a point is its bytes. Left and high is good."),
    scatter({ points, xTitle: "bits per weight", yTitle: "SQNR (dB)", label: "Bits per weight and signal-to-noise ratio of each tensor" }));
}

function levels() {
  const view = el("div", { "aria-live": "polite" });
  const byName = new Map(first.tensors.map((tensor) => [tensor.name, tensor]));
  const options = el("datalist", { id: "tensor-names" }, first.tensors.map((tensor) => el("option", { value: tensor.name })));
  const input = el("input", { list: "tensor-names", size: 40, "aria-label": "Tensor", change: () => byName.has(input.value) && show(byName.get(input.value)) });

  function show(tensor) {
    input.value = tensor.name;
    const units = tensor.units.map((index) => [" ", el("button", { type: "button", click: () => choose("unit", index) }, `Unit ${index}`)]);
    const why = tensor.exact ? ` Exact: ${tensor.exact}.` : "";
    view.replaceChildren(el("p", {}, `${described(tensor)}.${why}${tensor.problem ? ` Problem: ${tensor.problem}.` : ""}`, units.flat()),
      ...tensor.levels ? histogram(tensor) : [el("p", { class: "soft" }, "It has no levels of its own: raw values, or an update that needs the ones before.")]);
  }

  section("levels", "Levels", el("div", { class: "tools" }, el("span", {}, "Tensor"), input, options), view);
  on("tensor", (tensor) => {
    show(tensor);
    document.getElementById("levels").scrollIntoView();
    input.focus({ preventScroll: true });
  });
  const start = [...first.tensors].sort((a, b) => sum(b.bytes) - sum(a.bytes)).find((t) => t.levels);
  if (start) show(start);
}

const streamRate = (stream) => 8 * sum(stream.bytes) / (stream.weights || 1);

function compareStreams() {
  const columns = ["bitstream", "bytes", "of the first", "bits per weight", "SQNR", "lowest SQNR of a tensor"];
  const rows = data.streams.map((stream) => {
    const worst = Math.min(...noisy(stream).map((t) => t.sqnr));
    const cells = [stream.label, count(sum(stream.bytes)), share(sum(stream.bytes), sum(first.bytes)), streamRate(stream).toFixed(3),
      known(stream.sqnr) ? `${stream.sqnr.toFixed(2)} dB` : "", Number.isFinite(worst) ? `${worst.toFixed(1)} dB` : ""];
    return el("tr", {}, cells.map((cell, i) => el("td", { class: i ? "number" : "name" }, cell)));
  });
  const table = el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, columns.map((title, i) => el("th", { scope: "col", class: i ? "number" : null }, title)))), el("tbody", {}, rows)));
  const points = data.streams.filter((stream) => known(stream.sqnr)).map((stream) => ({ x: streamRate(stream), y: stream.sqnr, color: data.streams.indexOf(stream) % 8, r: 6,
    text: `${stream.label}: ${count(sum(stream.bytes))} bytes, ${streamRate(stream).toFixed(3)} bits per weight, ${stream.sqnr.toFixed(2)} dB` }));
  const line = [...points].sort((a, b) => a.x - b.x).map((point) => ({ ...point, color: 7 }));
  const legend = el("ul", { class: "legend" }, data.streams.map((stream, i) => {
    const dot = svg("svg", { width: 12, height: 12, "aria-hidden": "true" }, svg("circle", { class: `f${i % 8}`, cx: 6, cy: 6, r: 5 }));
    return el("li", {}, dot, ` ${stream.label}`);
  }));
  const curve = data.original ? [scatter({ points, lines: line.length > 1 ? [line] : [], xTitle: "bits per weight", yTitle: "SQNR (dB)", label: "Rate-distortion curve of the bitstreams" }), legend] : [el("p", {}, NOT_KNOWN)];
  section("compare", "Side by side", table, curve.flat(), perTensor());
}

// The tensors whose sizes differ most between the bitstreams.
function perTensor() {
  const found = others.map((stream) => new Map(stream.tensors.map((tensor) => [tensor.name, tensor])));
  const spread = (tensor) => Math.max(...found.map((each) => Math.abs(sum(each.get(tensor.name)?.bytes ?? [0]) - sum(tensor.bytes))));
  const most = [...first.tensors].sort((a, b) => spread(b) - spread(a)).slice(0, 20);
  const cell = (tensor) => (tensor ? `${count(sum(tensor.bytes))} B${quality(tensor) ? `, ${quality(tensor)}` : ""}` : "absent");
  const head = ["tensor", ...data.streams.map((stream) => stream.label)].map((title) => el("th", { scope: "col" }, title));
  const rows = most.map((tensor) => el("tr", {}, el("td", { class: "name" }, tensorLink(tensor)), el("td", {}, cell(tensor)), found.map((each) => el("td", {}, cell(each.get(tensor.name))))));
  return [el("h3", {}, "Tensors that differ most in size"), el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Tensors side by side" }, el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows)))];
}

function theme() {
  const button = document.getElementById("theme");
  const set = (dark) => {
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    button.setAttribute("aria-pressed", dark);
  };
  const system = matchMedia("(prefers-color-scheme: dark)");
  set(system.matches);
  system.addEventListener("change", () => set(system.matches));
  button.addEventListener("click", () => set(button.getAttribute("aria-pressed") !== "true"));
}

theme();
summary();
glance();
if (others.length) compareStreams();
whereBytesGo();
errors();
ratesAndErrors();
levels();
section("tensors", "Tensors", tensorTable(first.tensors));
section("bitstream", "Bitstream", unitViewer());
