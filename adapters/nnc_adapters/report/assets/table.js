// A table of tensors that can be sorted, filtered and searched.

const FIRST_ROWS = 100;

const COLUMNS = [
  ["tensor", (t) => t.name, (t) => tensorLink(t), "name"],
  ["shape", (t) => t.elements, shapeOf],
  ["kind", (t) => t.kind],
  ["type", (t) => t.dtype],
  ["bytes", (t) => sum(t.bytes), (t) => count(sum(t.bytes)), "number"],
  ["bits/weight", rate, (t) => rate(t).toFixed(2), "number"],
  ["SQNR", (t) => (t.exact ? Infinity : t.sqnr), quality, "number"],
  ["lost", (t) => t.lost, (t) => (t.lost ? `${(100 * t.lost).toFixed(2)} %` : ""), "number"],
  ["zeros changed", (t) => t.zeros, (t) => (t.zeros ? count(t.zeros) : ""), "number"],
  ["error/rms", (t) => t.most, (t) => (t.most ? short(t.most) : ""), "number"],
  ["step", (t) => t.step, (t) => (known(t.step) && !t.exact ? short(t.step) : ""), "number"],
  ["remarks", (t) => t.problem ?? t.exact ?? ""],
];

const FILTERS = {
  "all tensors": () => true,
  "changed values": (t) => !t.exact,
  "kept exact": (t) => t.exact,
  "with a problem": (t) => t.problem,
  "that lost values": (t) => t.lost || t.zeros,
};

function compared(a, b) {
  if (!known(a) || !known(b)) return known(b) - known(a);
  return typeof a === "string" ? a.localeCompare(b) : a - b;
}

function tensorTable(tensors) {
  let [sorted, direction, all] = [null, 1, false];
  const body = el("tbody");
  const told = el("output", { "aria-live": "polite" });
  const more = el("button", { type: "button", click: () => { all = true; draw(); } });
  const search = el("input", { type: "search", "aria-label": "Search tensors by name", placeholder: "Search", input: draw });
  const filter = el("select", { "aria-label": "Filter tensors", change: draw }, Object.keys(FILTERS).map((name) => el("option", {}, name)));
  const used = COLUMNS.filter(([, value]) => tensors.some((t) => known(value(t)) && value(t) !== ""));
  const heads = used.map((column) => {
    const button = el("button", { type: "button", click: () => sort(column) }, column[0]);
    return el("th", { scope: "col", "aria-sort": "none", class: column[3] }, button);
  });

  function sort(column) {
    const numeric = column[3] === "number" && column[0] !== "SQNR";
    direction = sorted === column ? -direction : numeric ? -1 : 1;
    sorted = column;
    heads.forEach((head, place) => head.setAttribute("aria-sort", used[place] !== column ? "none" : direction > 0 ? "ascending" : "descending"));
    draw();
  }

  function row(tensor) {
    const cells = used.map(([title, value, text, kind]) => {
      const bad = title === "remarks" && tensor.problem ? " bad" : "";
      return el("td", { class: `${kind ?? ""}${bad}` }, (text ?? value)(tensor) ?? "");
    });
    return el("tr", {}, cells);
  }

  function draw() {
    const words = search.value.toLowerCase();
    const found = tensors.filter((t) => t.name.toLowerCase().includes(words) && FILTERS[filter.value](t));
    if (sorted) found.sort((a, b) => direction * compared(sorted[1](a), sorted[1](b)));
    const shown = all ? found : found.slice(0, FIRST_ROWS);
    body.replaceChildren(...shown.map(row));
    told.textContent = `${count(found.length)} of ${plural(tensors.length, "tensor")}`;
    more.textContent = `Show all ${count(found.length)}`;
    more.hidden = shown.length === found.length;
  }

  draw();
  const table = el("table", {}, el("caption", { class: "soft" }, "Column titles sort; a tensor's name shows its levels and its units."),
    el("thead", {}, el("tr", {}, heads)), body);
  return [el("div", { class: "tools" }, search, filter, told), el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Tensors" }, table), more];
}
