/** From levels to the values of tensors, in the shapes and types that the model has (clauses 8.3 and 9). */
import { cuts, cutShapes, exchange, stays, unitDtype } from "./block.js";
import type { DataUnit, Dtype, Part, TensorData } from "./block.js";
import { product } from "./context.js";
import type { DataUnitHeader } from "./data_unit.js";
import { ElementValueError, PayloadError } from "./errors.js";

/** A tensor; `data` are its values row by row, those of float16 as bit patterns. */
export interface Tensor {
  name: string;
  shape: readonly number[];
  dtype: Dtype;
  data: TensorData;
}

/** A tensor's levels, and what makes values of them; they are gone then. */
export interface Coded {
  levels: Int32Array;
  scaled(step: number): Float32Array;
}

type Values = Int32Array | Float32Array;

/** The values that levels stand for; the quantization parameter is undefined for integers. */
export function reconstructed(coded: Coded, part: Part, qp: number | undefined, density: number): Values {
  if (qp === undefined) return coded.levels.slice();
  const step = stepSize(qp, density);
  return part.codebook ? lookedUp(coded.levels, part, step) : coded.scaled(step);
}

/** `2 ** density` steps per octave, 1 for 0. */
export function stepSize(qp: number, density: number): number {
  const octave = qp >> density;
  if (octave < -126 || octave > 127) {
    throw new ElementValueError(`qp ${qp} with qp_density ${density} gives a step of 2**${octave}, beyond binary32`, { element: "qp" });
  }
  const steps = 1 << density;
  return (steps + (qp - octave * steps)) * 2 ** (octave - density);
}

function lookedUp(levels: Int32Array, part: Part, step: number): Float32Array {
  const { values, zero_offset } = part.codebook!;
  const entries = Float32Array.from(values, (value) => step * value);
  const found = new Float32Array(levels.length);
  for (let i = 0; i < levels.length; i++) {
    const place = levels[i]! + zero_offset;
    if (place < 0 || place >= entries.length) {
      throw new PayloadError(`the index ${place} in a codebook of ${entries.length} entries`, { tensor: part.name });
    }
    found[i] = entries[place]!;
  }
  return found;
}

/** The tensors of a unit as the model has them, in header order; `values` are those of its parts, by name. */
export function delivered(unit: DataUnit, values: ReadonlyMap<string, Values>): Tensor[] {
  const h = unit.header;
  const dtype = unitDtype(h);
  const mapping = cuts(h);
  const restored = new Map(unit.parts.map((part) => [part.name, movedBack(values.get(part.name)!, part, h)]));
  const tensor = (name: string, shape: readonly number[], data: Values): Tensor => ({ name, shape, dtype, data: converted(data, dtype) });
  if (!mapping) {
    return h.names.map((name) => tensor(name, restored.get(name)!.shape, restored.get(name)!.data));
  }
  const whole = restored.get(h.names[0]!)!.data;
  const shapes = cutShapes(h.tensor_dimensions, mapping);
  return h.names.map((name, i) => tensor(name, shapes[i]!, piece(whole, h, i)));
}

function movedBack(data: Values, part: Part, h: DataUnitHeader): { shape: readonly number[]; data: Values } {
  if (stays(part, h)) return { shape: part.shape, data };
  const [first, ...others] = stridesOf(part.shape);
  const s = h.first_tensor_dimension_shift;
  return { shape: h.tensor_dimensions, data: gathered(data, 0, h.tensor_dimensions, [...others.slice(0, s), first!, ...others.slice(s)]) };
}

/** The piece that lies at one place in a coded tensor: cut, then axes exchanged. */
function piece(whole: Values, h: DataUnitHeader, i: number): Values {
  const { concatenation_axis_index: axis, split_index, shifts } = h.mapping!;
  const strides = stridesOf(h.tensor_dimensions);
  const start = (i ? split_index[i - 1]! : 0) * strides[axis]!;
  for (const [index, value] of shifts[i]!) exchange(strides, index, index + value);
  return gathered(whole, start, cutShapes(h.tensor_dimensions, h.mapping!)[i]!, strides);
}

export function stridesOf(shape: readonly number[]): number[] {
  return shape.map((_, axis) => product(shape.slice(axis + 1)));
}

/** A part of an array, row by row; its bits are kept, even those of what is not a number. */
export function gathered<T extends Values | Uint16Array | Uint8Array>(data: T, start: number, shape: readonly number[], strides: readonly number[]): T {
  const from = data instanceof Float32Array ? new Uint32Array(data.buffer, data.byteOffset, data.length) : data;
  const to = new (from.constructor as new (length: number) => Uint32Array)(product(shape));
  const place = shape.map(() => 0);
  const last = shape.length - 1;
  let at = start;
  for (let i = 0; i < to.length; ) {
    for (let j = 0; j < shape[last]!; j++) to[i++] = from[at + j * strides[last]!]!;
    for (let axis = last - 1; axis >= 0; axis--) {
      at += strides[axis]!;
      if (++place[axis]! < shape[axis]!) break;
      at -= strides[axis]! * shape[axis]!;
      place[axis] = 0;
    }
  }
  return (data instanceof Float32Array ? new Float32Array(to.buffer) : to) as T;
}

const BITS: Partial<Record<Dtype, number>> = { int8: 8, int16: 16 };

function converted(data: Values, dtype: Dtype): TensorData {
  if (dtype === "float64") return Float64Array.from(data);
  if (dtype === "float16") return halves(data as Float32Array);
  if (dtype === "int64") return BigInt64Array.from(data as Int32Array, BigInt);
  const bits = BITS[dtype];
  if (bits === undefined) return data;
  const bound = 2 ** (bits - 1);
  if (data.some((value) => value < -bound || value >= bound)) {
    throw new ElementValueError(`integers do not fit ${dtype}`, { element: "nnr_decompressed_data_format", rule: "data-format" });
  }
  return bits === 8 ? Int8Array.from(data) : Int16Array.from(data);
}

/** Bit patterns of float16: rounded to the nearest, ties to even; what is finite stays so. */
function halves(data: Float32Array): Uint16Array {
  const patterns = new Uint32Array(data.buffer, data.byteOffset, data.length);
  return Uint16Array.from(patterns, half);
}

function half(pattern: number): number {
  const sign = (pattern >>> 16) & 0x8000;
  const rest = pattern & 0x7fffffff;
  if (rest > 0x7f800000) return sign | 0x7c00 | ((rest & 0x7fffff) >> 13 || 1);
  if (rest === 0x7f800000) return sign | 0x7c00;
  if (rest >= 0x477fe000) return sign | 0x7bff; // the greatest that is finite
  if (rest >= 0x38800000) return sign | ((rest - 0x38000000 + 0xfff + ((rest >> 13) & 1)) >> 13);
  const exponent = rest >> 23;
  if (exponent < 102) return sign;
  const mantissa = (rest & 0x7fffff) | 0x800000;
  const shift = 126 - exponent;
  const halfway = 1 << (shift - 1);
  return sign | ((mantissa + halfway - 1 + ((mantissa >> shift) & 1)) >> shift);
}
