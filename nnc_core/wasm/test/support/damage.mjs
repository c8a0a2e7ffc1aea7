/** Ways to damage a bitstream, and what a decoder may do with it: decode it, or say what is wrong. */
import { decode, NncError } from "../../dist/index.js";

/** Numbers below 1 that follow from a seed (mulberry32). */
export function chance(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export const below = (next, count) => Math.floor(next() * count);
const EXTREMES = [0, 1, 0x7f, 0x80, 0xfe, 0xff];
const times = (next, ...counts) => counts[below(next, counts.length)];

/** Most of what matters is in front: in half of the cases the place is among the first 256 bytes. */
const place = (next, data) => below(next, next() < 0.5 ? Math.min(256, data.length) : data.length);

const DAMAGES = [
  function cut(next, data) {
    return data.slice(0, below(next, data.length));
  },
  function flipped(next, data) {
    const changed = data.slice();
    for (let count = times(next, 1, 1, 2, 4, 16); count > 0; count--) changed[place(next, data)] ^= 1 << below(next, 8);
    return changed;
  },
  function overwritten(next, data) {
    const changed = data.slice();
    for (let count = times(next, 1, 2, 4); count > 0; count--) changed[place(next, data)] = EXTREMES[below(next, EXTREMES.length)];
    return changed;
  },
  function shifted(next, data) {
    const [at, count] = [place(next, data), times(next, 1, 2, 3, 8, 40)];
    const middle = next() < 0.5 ? [] : Array.from({ length: count }, () => below(next, 256));
    return Uint8Array.from([...data.subarray(0, at), ...middle, ...data.subarray(middle.length ? at : at + count)]);
  },
  function moved(next, data) {
    const [from, to, size] = [place(next, data), place(next, data), 1 << below(next, 12)];
    const changed = data.slice();
    changed.set(data.subarray(from, Math.min(from + size, from + data.length - to)), to);
    return changed;
  },
];

export const damaged = (next, data) => DAMAGES[below(next, DAMAGES.length)](next, data);

/** Decode damaged data: how that ends, "decoded" or the name of an error of ours. Anything else is thrown. */
export async function outcome(data, options) {
  try {
    await decode(data, options);
    return "decoded";
  } catch (error) {
    if (error instanceof NncError) return error.name;
    throw error;
  }
}
