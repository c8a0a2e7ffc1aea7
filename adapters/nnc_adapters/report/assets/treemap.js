// A treemap of bytes: rectangles are buttons, of which those with more inside open when they are pressed.

const [SHOWN, DEEPEST, HEAD] = [250, 3, 20];

function node(name) {
  return { name, bytes: 0, inside: new Map(), tensor: null, kind: null };
}

function put(root, path, bytes, tensor, kind = null) {
  let at = root;
  at.bytes += bytes;
  for (const part of path) {
    if (!at.inside.has(part)) at.inside.set(part, node(part));
    at = at.inside.get(part);
    at.bytes += bytes;
    at.kind = kind;
  }
  at.tensor = tensor;
}

const pathOf = (name) => name.split(/[./:]+/).filter((part) => part);

function byModule(stream) {
  const root = node("all");
  const other = stream.bytes.slice();
  for (const tensor of stream.tensors) {
    put(root, pathOf(tensor.name), sum(tensor.bytes), tensor);
    tensor.bytes.forEach((bytes, kind) => { other[kind] -= bytes; });
  }
  if (other[1] > 0) put(root, ["(topology)"], other[1], null);
  if (other[0] + other[2] + other[3] > 0) put(root, ["(other units)"], other[0] + other[2] + other[3], null);
  return root;
}

function byKind(stream) {
  const root = node("all");
  const other = stream.bytes.slice();
  for (const tensor of stream.tensors) {
    tensor.bytes.forEach((bytes, kind) => {
      other[kind] -= bytes;
      if (bytes) put(root, [KINDS[kind], ...pathOf(tensor.name)], bytes, tensor, kind);
    });
  }
  other.forEach((bytes, kind) => { if (bytes > 0) put(root, [KINDS[kind], "(other units)"], bytes, null, kind); });
  return root;
}

// A chain of parts that holds nothing else is one rectangle.
function shortened(child) {
  let at = child;
  let name = child.name;
  while (at.inside.size === 1 && !at.tensor) {
    at = at.inside.values().next().value;
    name = `${name}.${at.name}`;
  }
  return { ...at, name };
}

function entries(root) {
  const all = [...root.inside.values()].map(shortened).sort((a, b) => b.bytes - a.bytes);
  if (all.length <= SHOWN) return all;
  const rest = node(`${all.length - SHOWN + 1} smaller ones`);
  for (const small of all.slice(SHOWN - 1)) {
    rest.bytes += small.bytes;
    rest.inside.set(rest.inside.size, small);
  }
  return [...all.slice(0, SHOWN - 1), rest].sort((a, b) => b.bytes - a.bytes);
}

// How many items from `start` on make a row along a side: as many as make its rectangles less narrow.
function rowEnd(areas, start, side) {
  let [end, area, worst] = [start, 0, Infinity];
  for (; end < areas.length; end++) {
    const more = area + areas[end];
    const next = Math.max(side * side * areas[start] / (more * more), more * more / (side * side * areas[end] || 1e-9));
    if (next > worst) break;
    [area, worst] = [more, next];
  }
  return end;
}

// Squarified: rows along the shorter side of what is left.
function squarified(items, box) {
  const placed = [];
  const scale = box.w * box.h / (sum(items.map((item) => item.bytes)) || 1);
  const areas = items.map((item) => item.bytes * scale);
  let { x, y, w, h } = box;
  for (let start = 0, end; start < items.length; start = end) {
    const side = Math.min(w, h);
    end = rowEnd(areas, start, side);
    const depth = side ? sum(areas.slice(start, end)) / side : 0;
    let along = 0;
    for (let at = start; at < end; at++) {
      const length = depth ? areas[at] / depth : 0;
      placed.push(w < h ? { item: items[at], x: x + along, y, w: length, h: depth } : { item: items[at], x, y: y + along, w: depth, h: length });
      along += length;
    }
    if (w < h) [y, h] = [y + depth, h - depth];
    else [x, w] = [x + depth, w - depth];
  }
  return placed;
}

// The rectangles of a node and, in those that have room, of what is inside, after their own.
function* nested(root, box, depth) {
  for (const placed of squarified(entries(root), box)) {
    const { item, x, y, w, h } = placed;
    const opened = item.inside.size > 0 && w > 90 && h > 60 && depth < DEEPEST;
    yield { ...placed, opened };
    if (opened) yield* nested(item, { x: x + 3, y: y + HEAD, w: w - 6, h: h - HEAD - 3 }, depth + 1);
  }
}

function treemap(stream) {
  const views = { module: byModule(stream), kind: byKind(stream) };
  let path = [views.module];
  const map = el("div", { class: "map", role: "group", "aria-label": "Treemap of bytes" });
  const trail = el("nav", { "aria-label": "Place in the treemap", class: "tools" });
  const switches = Object.keys(views).map((name) =>
    el("button", { type: "button", "aria-pressed": name === "module", click: () => show([views[name]], name) }, `By ${name}`));

  function tile({ item, x, y, w, h, opened }, total) {
    const place = item.inside.size ? `${plural(item.inside.size, "part")}, opens` : "";
    const label = `${item.name}: ${count(item.bytes)} bytes, ${share(item.bytes, total)}${place ? `, ${place}` : ""}`;
    const text = w > 50 && h > 16 ? [el("span", {}, item.name)] : [];
    if (opened) text.push(` ${share(item.bytes, total)}`);
    else if (w > 50 && h > 34) text.push(el("span", { class: "soft" }, share(item.bytes, total)));
    const button = el("button", { type: "button", class: `tile c${color(item)}${opened ? " open" : ""}`, "aria-label": label, title: label, click: () => open(item) }, text);
    Object.assign(button.style, { left: `${x}px`, top: `${y}px`, width: `${w}px`, height: `${h}px` });
    if (w < 6 || h < 6) button.style.padding = "0";
    return button;
  }

  // A kind has its colour, and in the other view a name.
  const color = (item) => item.kind ?? [...item.name].reduce((hash, letter) => (hash * 31 + letter.codePointAt(0)) % 8, 7);

  function open(item) {
    if (item.inside.size) show([...path, item]);
    else if (item.tensor) choose("tensor", item.tensor);
  }

  function show(next, pressed) {
    path = next;
    if (pressed) switches.forEach((each) => each.setAttribute("aria-pressed", each.textContent === `By ${pressed}`));
    const focused = map.contains(document.activeElement);
    draw();
    if (focused) map.querySelector("button")?.focus({ preventScroll: true });
  }

  function draw() {
    const here = path[path.length - 1];
    const box = { x: 0, y: 0, w: map.clientWidth, h: map.clientHeight };
    map.replaceChildren(...[...nested(here, box, 0)].map((each) => tile(each, path[0].bytes)));
    trail.replaceChildren(...path.map((each, depth) =>
      el("button", { type: "button", "aria-current": depth === path.length - 1 ? "location" : null, click: () => show(path.slice(0, depth + 1)) },
        `${each.name} (${count(each.bytes)})`)));
  }

  map.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && path.length > 1) show(path.slice(0, -1));
    const tiles = [...map.children];
    arrows(event, tiles.indexOf(document.activeElement), tiles.length, (place) => tiles[place].focus({ preventScroll: true }));
  });
  let width = 0;
  new ResizeObserver(() => { if (map.clientWidth !== width) { width = map.clientWidth; draw(); } }).observe(map);
  return [el("div", { class: "tools" }, switches), trail, map,
    el("p", { class: "soft" }, "Enter opens a module or shows a tensor, arrow keys move, Escape goes back.")];
}
