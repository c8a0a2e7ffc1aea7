// The bitstream viewer: the units in order, and of one of them every syntax element with its place, bits and bytes.

const FIRST_UNITS = 300;
const unitOf = ([index, offset, size, payload, within, omitted, type, kind, content, head, shape, values]) =>
  ({ index, offset, size, payload, within, omitted, type, kind, content, head, shape, values });

function elementsOf(unit) {
  const shape = data.shapes[unit.shape];
  return unit.values.map((value, at) => {
    const [name, descriptor, place, bits] = shape.slice(4 * at, 4 * at + 4);
    return { name: data.words[name], descriptor: data.words[descriptor], place, bits, value };
  });
}

const bytesOf = (unit) => Uint8Array.from(atob(unit.head), (letter) => letter.charCodeAt(0));

function bitsOf(bytes, { place, bits }) {
  if (place + bits > 8 * bytes.length) return "";
  const text = [];
  for (let at = place; at < place + Math.min(bits, 64); at++) text.push((bytes[at >> 3] >> (7 - (at & 7))) & 1);
  return text.join("") + (bits > 64 ? "..." : "");
}

function hexLine(bytes, start, marked, offset) {
  const cells = [];
  for (let at = start; at < Math.min(start + 16, bytes.length); at++) {
    const text = bytes[at].toString(16).padStart(2, "0");
    const inside = marked && 8 * at + 8 > marked.place && 8 * at < marked.place + marked.bits;
    cells.push(inside ? el("mark", {}, text) : text, " ");
  }
  return [`${(offset + start).toString(16).padStart(8, "0")}  `, ...cells, "\n"];
}

function hexView(unit, bytes, marked) {
  const lines = [];
  for (let at = 0; at < bytes.length; at += 16) lines.push(hexLine(bytes, at, marked, unit.offset));
  const rest = unit.size - bytes.length;
  return [...lines.flat(), rest > 0 ? `... ${plural(rest, "byte")} of payload more` : ""];
}

function details(unit) {
  const [elements, bytes] = [elementsOf(unit), bytesOf(unit)];
  const hex = el("pre", { class: "hex", tabindex: 0, "aria-label": "Bytes of the unit in hexadecimal" }, hexView(unit, bytes, null));
  let place = 0;
  const rows = elements.map((element, at) => el("tr", { tabindex: at ? -1 : 0, "aria-selected": "false", click: () => visit(at) },
    el("td", { class: "number" }, element.place), el("td", {}, element.descriptor), el("td", { class: "name" }, element.name),
    el("td", { class: "mono" }, element.value ?? ""), el("td", { class: "mono" }, bitsOf(bytes, element))));

  function visit(next) {
    rows[place].setAttribute("aria-selected", "false");
    rows[place].tabIndex = -1;
    place = next;
    rows[place].setAttribute("aria-selected", "true");
    rows[place].tabIndex = 0;
    rows[place].focus({ preventScroll: false });
    hex.replaceChildren(...hexView(unit, bytes, elements[place]));
    hex.querySelector("mark")?.scrollIntoView({ block: "nearest" });
  }

  const body = el("tbody", { keydown: (event) => arrows(event, place, rows.length, visit) }, rows);
  const head = ["bit", "type", "element", "value", "bits"].map((title) => el("th", { scope: "col" }, title));
  const table = el("table", { role: "grid", "aria-label": "Syntax elements" }, el("thead", {}, el("tr", {}, head)), body);
  const within = known(unit.within) ? `, inside unit ${unit.within}` : "";
  return [
    el("h3", {}, `Unit ${unit.index}: NNR_${unit.type}${unit.content ? `, ${unit.content}` : ""}`),
    el("p", { class: "soft" }, `Byte ${count(unit.offset)}, ${plural(unit.size, "byte")}, of which the first ${count(unit.payload)} are header${within}. Bit offsets count from the start of the unit.`),
    el("div", { class: "scroll elements" }, table),
    unit.omitted ? el("p", {}, `${plural(unit.omitted, "element")} more; nnc inspect --trace --unit ${unit.index} shows them.`) : null,
    el("h3", {}, "Bytes"), hex];
}

function matching(units, words, type) {
  const text = words.toLowerCase();
  const named = new Set(data.words.flatMap((word, place) => (text && word.toLowerCase().includes(text) ? [place] : [])));
  const shapes = data.shapes.map((shape) => shape.some((word, at) => at % 4 === 0 && named.has(word)));
  const hit = (unit) => !text || shapes[unit.shape] || `${unit.index} ${unit.kind} ${unit.content}`.toLowerCase().includes(text)
    || unit.values.some((value) => String(value).toLowerCase().includes(text));
  return units.filter((unit) => (!type || unit.type === type) && hit(unit));
}

function unitViewer() {
  const units = data.units.map(unitOf);
  let [found, chosen, all] = [units, null, false];
  const list = el("div", { class: "scroll", role: "listbox", tabindex: 0, "aria-label": "Units in bitstream order" });
  const view = el("div", { "aria-live": "polite" });
  const told = el("output", { "aria-live": "polite" });
  const more = el("button", { type: "button", click: () => { all = true; draw(); } });
  const search = el("input", { type: "search", "aria-label": "Search units by tensor, element or value", placeholder: "Tensor, element or value", input: filter });
  const types = [...new Set(units.map((unit) => unit.type))];
  const type = el("select", { "aria-label": "Filter by unit type", change: filter }, el("option", { value: "" }, "all units"), types.map((name) => el("option", { value: name }, `NNR_${name}`)));

  function filter() {
    found = matching(units, search.value, type.value);
    draw();
  }

  function option(unit) {
    return el("div", { class: "option", role: "option", id: `unit-${unit.index}`, "aria-selected": unit === chosen, click: () => show(unit) },
      `${unit.index} · ${unit.kind} · ${count(unit.size)} B`, unit.content ? el("div", { class: "soft" }, unit.content) : null);
  }

  function draw() {
    const shown = all ? found : found.slice(0, FIRST_UNITS);
    list.replaceChildren(...shown.map(option));
    told.textContent = `${count(found.length)} of ${plural(units.length, "unit")}`;
    more.textContent = `Show all ${count(found.length)}`;
    more.hidden = shown.length === found.length;
  }

  function show(unit) {
    document.getElementById(`unit-${chosen?.index}`)?.setAttribute("aria-selected", "false");
    chosen = unit;
    if (found.indexOf(unit) >= FIRST_UNITS && !all) { all = true; draw(); }
    const entry = document.getElementById(`unit-${unit.index}`);
    entry?.setAttribute("aria-selected", "true");
    if (entry) list.scrollTop = Math.max(0, entry.offsetTop - list.offsetTop - list.clientHeight / 2);
    list.setAttribute("aria-activedescendant", `unit-${unit.index}`);
    view.replaceChildren(...details(unit).filter((part) => part !== null));
  }

  list.addEventListener("keydown", (event) => arrows(event, found.indexOf(chosen), found.length, (place) => show(found[place])));
  on("unit", (index) => {
    if (!found.includes(units[index])) { search.value = type.value = ""; filter(); }
    show(units[index]);
    document.getElementById("bitstream").scrollIntoView();
    list.focus({ preventScroll: true });
  });
  draw();
  if (units.length) show(units[0]);
  return [el("div", { class: "tools" }, search, type, told), el("div", { class: "viewer" }, el("div", {}, list, more), view)];
}
