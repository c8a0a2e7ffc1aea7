/**
 * Tensors that travel in other clothes: bit patterns and further units, told by the names of their units.
 *
 * NNC Suite carries what NNR has no payload for like that, such as float16 values that must not change: see
 * nnc_core/bitstream/marks.py for the table of names.
 */
import type { Dtype, TensorData } from "./block.js";
import { product } from "./context.js";
import { PayloadError } from "./errors.js";
import { gathered, stridesOf } from "./values.js";
import type { Tensor } from "./values.js";

const EXPONENT_BITS: Record<string, number> = { float16: 5, bfloat16: 8, float32: 8, float64: 11 };
const BITS: Record<string, number> = { float16: 16, bfloat16: 16, float32: 32, float64: 64 };
const NAME =
  /^(.*)@(?:plain|(u?int(?:8|16|32|64))\.value([+-]\d{1,20})|(float16|bfloat16|float32|float64)\.(?:(none|rest|index|palette|places|values)|exponent(?:\+([1-7]))?(t?)-(\d{1,6})))$/s;

/** What the name of a unit says: of which tensor it is a part, and which; `number` is what was taken off. */
export interface Mark {
  tensor: string;
  part: string;
  dtype: string;
  number: bigint;
  more: number;
  reversed: boolean;
}

export function markOf(name: string): Mark {
  const found = NAME.exec(name);
  const mark = (tensor: string, part: string, dtype = "", number = 0n, more = 0, reversed = false): Mark => ({ tensor, part, dtype, number, more, reversed });
  if (!found) return mark(name, "plain");
  const [, tensor, integer, offset, float, part, more, turned, bias] = found;
  if (integer) return mark(tensor!, "value", integer, -BigInt(offset!));
  if (bias) return mark(tensor!, "exponent", float, BigInt(bias), Number(more ?? 0), turned === "t");
  return mark(tensor!, part ?? "plain", float);
}

/** The type of a restored tensor; undefined where the unit's own type counts. */
export const restoredDtype = ({ dtype }: Mark): Dtype | undefined => (dtype === "bfloat16" ? "float32" : (dtype as Dtype)) || undefined;

/** The tensor called `name` that some units carry. */
export function restored(name: string, units: readonly Tensor[]): Tensor {
  const found = new Map(units.map((tensor) => [markOf(tensor.name).part, { mark: markOf(tensor.name), tensor }]));
  const kinds = [...found.keys()].sort().join(" ");
  const of = (part: string) => found.get(part)!;
  const made = (): Omit<Tensor, "name"> | undefined => {
    if (found.size !== units.length) return undefined;
    if (kinds === "plain") return of("plain").tensor;
    if (kinds === "value") return integers(of("value").mark, of("value").tensor);
    if (kinds === "none") return patterns(of("none").mark, of("none").tensor);
    if (kinds === "exponent rest") return recombined(of("exponent"), of("rest"));
    if (kinds === "index palette") return fromPalette(of("index").tensor, of("palette"));
    if (kinds === "places plain values") return withExceptions(of("plain").tensor, of("places").tensor, of("values"));
    return undefined;
  };
  const tensor = made();
  if (!tensor) throw new PayloadError(`the units ${units.map((unit) => unit.name).join(", ")} do not make a tensor`);
  return { ...tensor, name };
}

interface Marked {
  mark: Mark;
  tensor: Tensor;
}

function whole(tensor: Tensor): Int32Array {
  if (tensor.dtype !== "int32") throw new PayloadError(`${tensor.dtype} values, expected int32`);
  return tensor.data as Int32Array;
}

const ARRAYS = {
  int8: Int8Array, int16: Int16Array, int32: Int32Array, int64: BigInt64Array,
  uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, uint64: BigUint64Array,
};

function integers(mark: Mark, tensor: Tensor): Omit<Tensor, "name"> {
  const dtype = mark.dtype as Dtype;
  const data = whole(tensor);
  const bits = BigInt(dtype.replace(/\D+/, ""));
  const least = dtype[0] === "u" ? 0n : -(1n << (bits - 1n));
  const most = least + (1n << bits) - 1n;
  const [low, high] = extremes(data);
  if (BigInt(low) + mark.number < least || BigInt(high) + mark.number > most) throw new PayloadError(`integers do not fit ${dtype}`);
  const number = Number(mark.number);
  const arrays: Partial<Record<Dtype, new (length: number) => TensorData>> = ARRAYS;
  const values = new arrays[dtype]!(data.length);
  data.forEach((value, i) => (values[i] = bits === 64n ? BigInt(value) + mark.number : value + number));
  return { dtype, shape: tensor.shape, data: values };
}

function extremes(data: Int32Array): [number, number] {
  let [low, high] = [Infinity, -Infinity];
  for (const value of data) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

/** Integers that grow with the values, as the bit patterns of 16-bit types. */
function patterns(mark: Mark, tensor: Tensor): Omit<Tensor, "name"> {
  const data = whole(tensor);
  const bits = BITS[mark.dtype]!;
  const bound = 2 ** (bits - 1);
  const [low, high] = extremes(data);
  if (bits > 32 || low < -bound || high >= bound) throw new PayloadError(`bit patterns of ${bits} bits that have more`);
  const unmapped = (value: number): number => (value < 0 ? ~value + bound : value);
  return floats(mark.dtype, tensor.shape, bits === 16 ? Uint16Array.from(data, unmapped) : Uint32Array.from(data, unmapped));
}

function floats(dtype: string, shape: readonly number[], bits: Uint16Array | Uint32Array): Omit<Tensor, "name"> {
  if (dtype === "float16") return { dtype, shape, data: bits as Uint16Array };
  if (dtype === "float64") return { dtype, shape, data: new Float64Array(bits.buffer, bits.byteOffset, bits.length / 2) };
  const words = dtype === "bfloat16" ? Uint32Array.from(bits, (pattern) => pattern * 65536) : bits;
  return { dtype: "float32", shape, data: new Float32Array(words.buffer, words.byteOffset, words.length) };
}

/** The bytes that raw floats carry; `size` of them, and at most three more. */
function bytesOf(tensor: Tensor, size: number): Uint8Array {
  if (tensor.dtype !== "float32") throw new PayloadError(`${tensor.dtype} values, expected float32`);
  const { buffer, byteOffset, byteLength } = tensor.data;
  if (byteLength < size || byteLength >= size + 4) throw new PayloadError(`${byteLength} bytes, expected ${size}`);
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** Exponents, perhaps with the first bits of mantissas, and the rest: signs and mantissas, packed without gaps. */
function recombined({ mark, tensor }: Marked, rest: Marked): Omit<Tensor, "name"> {
  const { dtype } = mark;
  if (rest.mark.dtype !== dtype) throw new PayloadError(`exponents of ${dtype} beside a rest of ${rest.mark.dtype}`);
  const upper = EXPONENT_BITS[dtype]! + mark.more;
  const mantissa = BITS[dtype]! - 1 - upper;
  const shape = mark.reversed ? [...tensor.shape].reverse() : tensor.shape;
  const data = mark.reversed ? gathered(whole(tensor), 0, shape, stridesOf(tensor.shape).reverse()) : whole(tensor);
  const number = Number(mark.number);
  const [low, high] = extremes(data);
  if (mantissa < 0 || low + number < 0 || high + number >= 2 ** upper) throw new PayloadError(`exponents do not fit ${dtype}`);
  const lower = unpacked(rest.tensor, data.length, mantissa + 1);
  const sizes = BITS[dtype]! / 16;
  const halves = new Uint16Array(data.length * sizes);
  const words = new Uint32Array(halves.buffer, 0, sizes > 1 ? halves.length / 2 : 0);
  for (let i = 0; i < data.length; i++) {
    const sign = Math.floor(lower[i]! / 2 ** mantissa);
    const value = lower[i]! - sign * 2 ** mantissa;
    const exponent = data[i]! + number;
    if (sizes === 4) {
      words[2 * i] = value % 2 ** 32;
      words[2 * i + 1] = sign * 2 ** 31 + exponent * 2 ** (mantissa - 32) + Math.floor(value / 2 ** 32);
    } else if (sizes === 2) words[i] = sign * 2 ** 31 + exponent * 2 ** mantissa + value;
    else halves[i] = sign * 2 ** 15 + exponent * 2 ** mantissa + value;
  }
  return floats(dtype, shape, sizes === 1 ? halves : words);
}

/** Values of so many bits: first the whole bytes of all, the lowest first, then the bits that are left of all. */
function unpacked(tensor: Tensor, count: number, bits: number): Float64Array {
  const [octets, loose] = [Math.floor(bits / 8), bits % 8];
  const bytes = bytesOf(tensor, count * octets + Math.ceil((count * loose) / 8));
  const start = count * octets;
  return Float64Array.from({ length: count }, (_, i) => {
    let value = 0;
    for (let k = 0; k < loose; k++) {
      const at = i * loose + k;
      value += ((bytes[start + (at >> 3)]! >> (at & 7)) & 1) * 2 ** k;
    }
    for (let k = octets - 1; k >= 0; k--) value = value * 256 + bytes[i * octets + k]!;
    return value;
  });
}

/** Bit patterns by their places in a list. */
function fromPalette(indices: Tensor, palette: Marked): Omit<Tensor, "name"> {
  const places = whole(indices);
  const [low, high] = extremes(places);
  if (low < 0) throw new PayloadError("a place before the beginning of a list");
  const list = listed(palette, high + 1);
  const bits = new Uint8Array(places.length * list.size);
  places.forEach((place, i) => bits.set(list.bytes.subarray(place * list.size, (place + 1) * list.size), i * list.size));
  return { shape: indices.shape, ...typed(palette.mark.dtype, bits) };
}

/** A tensor with values in the place of some: what to add to the index of each to get the next, and the values. */
function withExceptions(tensor: Tensor, steps: Tensor, values: Marked): Omit<Tensor, "name"> {
  const list = listed(values, product(steps.shape));
  const { dtype } = typed(values.mark.dtype, list.bytes);
  if (dtype !== tensor.dtype) throw new PayloadError(`${dtype} values in a tensor of ${tensor.dtype}`);
  const data = tensor.data.slice() as TensorData;
  const bytes = new Uint8Array(data.buffer);
  let place = 0;
  whole(steps).forEach((step, i) => {
    place += step;
    if (step < 0 || place >= data.length) throw new PayloadError(`places of exceptional values outside of a tensor of ${data.length} values`);
    bytes.set(list.widened.subarray(i * data.BYTES_PER_ELEMENT, (i + 1) * data.BYTES_PER_ELEMENT), place * data.BYTES_PER_ELEMENT);
  });
  return { ...tensor, data };
}

/** The values whose bytes are packed into raw floats; `widened` are those of the type that is returned. */
function listed({ mark, tensor }: Marked, count: number): { bytes: Uint8Array; size: number; widened: Uint8Array } {
  const size = BITS[mark.dtype]! / 8;
  const bytes = bytesOf(tensor, count * size).slice(0, count * size);
  const { buffer } = typed(mark.dtype, bytes).data;
  return { bytes, size, widened: new Uint8Array(buffer) };
}

function typed(dtype: string, bytes: Uint8Array): Pick<Tensor, "dtype" | "data"> {
  const bits = BITS[dtype] === 16 ? new Uint16Array(bytes.buffer) : new Uint32Array(bytes.buffer);
  return floats(dtype, [], bits);
}
