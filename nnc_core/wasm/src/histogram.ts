/** Histograms of what the arithmetic coder codes, as `nnc report` makes them. */

const BINS = 64;
/** The share of levels that may lie beside the bins on each side. */
const TAIL = 1e-3;
const COUNTABLE = 2 ** 20;

/** `counts[i]` counts the levels from `first + i * width` on, `below` and `above` what lies beside; bits by entropy. */
export type Histogram = [first: number, width: number, counts: number[], below: number, above: number, zeros: number, entropy: number];

/** Count levels in at most 64 bins. Of `dependent` quantization's, those of one sign share an integer two by two. */
export function histogram(levels: Int32Array, dependent: boolean): Histogram {
  let [low, high] = [Infinity, -Infinity];
  for (const level of levels) {
    if (level < low) low = level;
    if (level > high) high = level;
  }
  if (high - low >= COUNTABLE) return coarse(levels, low, high);
  const counts = new Float64Array(high - low + 1);
  for (const level of levels) counts[level - low]!++;
  const zeros = low <= 0 && high >= 0 ? counts[-low]! : 0;
  const [first, width, bins, below, above] = cut(counts, low);
  return [first, width, bins, below, above, zeros, rounded(entropy(dependent ? halved(counts, low) : counts))];
}

const rounded = (bits: number): number => Math.round(1000 * bits) / 1000;

/** How often each integer is coded where the parity of a level follows from the state. */
function halved(counts: Float64Array, low: number): Float64Array {
  const integer = (level: number): number => Math.sign(level) * Math.floor((Math.abs(level) + 1) / 2);
  const least = integer(low);
  const found = new Float64Array(integer(low + counts.length - 1) - least + 1);
  counts.forEach((count, i) => (found[integer(low + i) - least]! += count));
  return found;
}

function entropy(counts: Float64Array): number {
  const all = counts.reduce((sum, count) => sum + count, 0);
  return Math.abs(counts.reduce((bits, count) => (count ? bits - (count / all) * Math.log2(count / all) : bits), 0));
}

/** The bins of single levels put together, without the tails. */
function cut(counts: Float64Array, low: number): [number, number, number[], number, number] {
  let sum = 0;
  const tail = counts.map((count) => (sum += count));
  const at = (share: number): number => tail.findIndex((reached) => reached >= share * sum);
  const [start, end] = [at(TAIL), at(1 - TAIL)];
  const width = Math.ceil((end + 1 - start) / BINS);
  const bins = Array.from({ length: Math.ceil((end + 1 - start) / width) }, (_, i) => {
    const from = start + i * width;
    return counts.subarray(from, Math.min(from + width, end + 1)).reduce((all, count) => all + count, 0);
  });
  return [low + start, width, bins, start ? tail[start - 1]! : 0, sum - tail[end]!];
}

/** Levels that are too far apart to be counted one by one. */
function coarse(levels: Int32Array, low: number, high: number): Histogram {
  const width = Math.ceil((high + 1 - low) / BINS);
  const bins = new Array<number>(Math.floor((high - low) / width) + 1).fill(0);
  let zeros = 0;
  for (const level of levels) {
    bins[Math.floor((level - low) / width)]!++;
    if (level === 0) zeros++;
  }
  const sorted = levels.slice().sort();
  const runs: number[] = [];
  for (let i = 0, start = 0; i < sorted.length; i++) {
    if (sorted[i + 1] === sorted[i]) continue;
    runs.push(i + 1 - start);
    start = i + 1;
  }
  return [low, width, bins, 0, 0, zeros, rounded(entropy(Float64Array.from(runs)))];
}
