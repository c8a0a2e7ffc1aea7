// What the tests ask a page about.

const channel = (c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
const rgb = (color) => color.match(/[\d.]+/g).map(Number);
const luminance = (color) => { const [r, g, b] = rgb(color).map(channel); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const transparent = (node) => rgb(getComputedStyle(node).backgroundColor)[3] === 0;

function contrast(node) {
  let behind = node;
  while (behind.parentElement && transparent(behind)) behind = behind.parentElement;
  const [text, back] = [luminance(getComputedStyle(node).color), luminance(getComputedStyle(behind).backgroundColor)];
  return (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05);
}

globalThis.checks = {
  faint: () => [...document.querySelectorAll("body *")]
    .filter((node) => node.children.length === 0 && node.innerText && contrast(node) < 4.5)
    .map((node) => `${node.className} ${node.innerText}`),

  nameless: () => [...document.querySelectorAll("button, a, input, select, svg[tabindex], [role=listbox], [role=region], [role=img]")]
    .filter((node) => !(node.getAttribute("aria-label") || node.innerText || node.labels?.length))
    .map((node) => node.outerHTML.slice(0, 200)),

  unlabelled: () => [...document.querySelectorAll("section")]
    .filter((section) => !document.getElementById(section.getAttribute("aria-labelledby"))?.innerText).length,

  covered: (width, height) => {
    const boxes = squarified(entries(byModule(first)), { x: 0, y: 0, w: width, h: height });
    const most = (end) => Math.max(...boxes.map(end));
    return [sum(boxes.map((box) => box.w * box.h)), most((box) => box.x + box.w), most((box) => box.y + box.h)];
  },

  slivers: (least) => [...document.querySelectorAll(".tile")]
    .filter((tile) => Math.min(tile.offsetWidth, tile.offsetHeight) < least).map((tile) => tile.title),

  rows: (selector) => [...document.querySelectorAll(`${selector} tbody tr`)].map((row) => [...row.cells].map((cell) => cell.textContent)),
  texts: (selector) => [...document.querySelectorAll(selector)].map((node) => node.textContent),
  text: (selector) => document.querySelector(selector).innerText,
  click: (selector, text) => [...document.querySelectorAll(selector)].find((node) => node.textContent.startsWith(text)).click(),
  focus: (selector, text = "") => [...document.querySelectorAll(selector)].find((node) => node.textContent.startsWith(text)).focus(),
  count: (selector) => document.querySelectorAll(selector).length,
  type: (selector, text) => {
    const box = document.querySelector(selector);
    box.value = text;
    box.dispatchEvent(new Event("input"));
  },
};
