/** Bounds on what a bitstream may ask for, checked before anything is allocated. */
import { LimitError } from "./errors.js";

/** How many times its size a file may decode to; row after row of zeros takes a thousandth of that. */
const EXPANSION = 1 << 14;
/** Bytes that a file of any size may decode to. */
const HARMLESS = 1 << 28;

/**
 * Upper bounds. What has its default value follows the size of the file at hand.
 *
 * `tensorElements` is per tensor, `decodedBytes` and `units` per bitstream, `nameLength` per name in bytes, `dimensions`,
 * `codebookSize` and `entryPoints` per data unit, `nameBytes` and `topologyBytes` after inflating.
 */
export interface Limits {
  tensorElements: number;
  decodedBytes: number;
  units: number;
  nameLength: number;
  dimensions: number;
  nameBytes: number;
  codebookSize: number;
  entryPoints: number;
  topologyBytes: number;
  nesting: number;
}

export const DEFAULT_LIMITS: Readonly<Limits> = Object.freeze({
  tensorElements: 2 ** 29,
  decodedBytes: 2 ** 34,
  units: 1 << 17,
  nameLength: 4096,
  dimensions: 64,
  nameBytes: 1 << 25,
  codebookSize: 1 << 16,
  entryPoints: 1 << 17,
  topologyBytes: 2 ** 31 - 1,
  nesting: 64,
});

/** The limits for `size` bytes of a bitstream: a large one may hold more without being asked for, a tiny one less. */
export function following(limits: Limits, size: number): Limits {
  const decoded = Math.max(HARMLESS, EXPANSION * size);
  const bounds: Partial<Limits> = {
    tensorElements: Math.max(Math.min(DEFAULT_LIMITS.tensorElements, decoded / 4), 8 * size),
    decodedBytes: Math.max(Math.min(DEFAULT_LIMITS.decodedBytes, decoded), 32 * size),
    units: Math.max(DEFAULT_LIMITS.units, size >>> 10),
    nameBytes: Math.max(DEFAULT_LIMITS.nameBytes, size),
    entryPoints: Math.max(DEFAULT_LIMITS.entryPoints, size >>> 10),
  };
  const changed = Object.entries(bounds).filter(([name]) => {
    const limit = name as keyof Limits;
    return limits[limit] === DEFAULT_LIMITS[limit];
  });
  return { ...limits, ...Object.fromEntries(changed) };
}

/** `value`, if it is within the bound called `limit`; otherwise a `LimitError`. */
export function within(limits: Limits, limit: keyof Limits, value: number, where = ""): number {
  if (value > limits[limit]) throw new LimitError(limit, value, limits[limit], where);
  return value;
}
