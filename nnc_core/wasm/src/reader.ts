/** The descriptors of clause 6.1: how syntax elements are read from bits, the most significant first. */
import { AlignmentError, BitstreamError, ElementValueError, LimitError, TruncatedError, UnitSizeError } from "./errors.js";
import type { Place } from "./errors.js";

const LONGEST_PREFIX = 32;
/** Rules that a wrong reading breaks as soon as it goes wrong. */
const GENERAL_RULES = ["truncated", "unit-size", "byte-alignment", "element-range", "golomb-prefix"];
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Reads the syntax elements of one unit, which is `data`; bit offsets in errors count from its start. */
export class Reader {
  readonly data: Uint8Array;
  readonly unit: number | undefined;
  protected position = 0;

  /** `base` is where the data begin in their unit, in bits; with `scale` 0 all errors are there. */
  constructor(data: Uint8Array, unit?: number, private readonly base = 0, private readonly scale: 0 | 1 = 1) {
    this.data = data;
    this.unit = unit;
  }

  get bitOffset(): number {
    return this.position;
  }

  /** `u(bits)`, at most 48 of them; the legal values are `least` to `most`. */
  u(bits: number, name: string, least = 0, most = Infinity): number {
    const value = this.take(bits, name);
    if (value < least || value > most) throw this.notAllowed(name, value, bits, least, most);
    return value;
  }

  /** `u(1)` as a truth value. */
  flag(name: string): boolean {
    return this.u(1, name) === 1;
  }

  /** `i(bits)`: two's complement. */
  i(bits: number, name: string): number {
    const value = this.take(bits, name);
    return value >= 2 ** (bits - 1) ? value - 2 ** bits : value;
  }

  /** `u(bits)` as hexadecimal digits, for digests. */
  digest(bits: number, name: string): string {
    this.require(bits, name);
    let digits = "";
    for (let done = 0; done < bits; done += 8) digits += this.take(8, name).toString(16).padStart(2, "0");
    return digits;
  }

  /** `ue(k)`: an exponential-Golomb code of order `k`. */
  ue(k: number, name: string, least = 0, most = 2 ** 32 - 1): number {
    const start = this.position;
    const value = this.golomb(k, name);
    if (value < least || value > most) throw this.notAllowed(name, value, this.position - start, least, most);
    return value;
  }

  /** `ie(k)`: a signed integer, mapped onto `ue(k)`. */
  ie(k: number, name: string, least = -(2 ** 31), most = 2 ** 31 - 1): number {
    const start = this.position;
    const coded = this.golomb(k, name);
    const value = coded % 2 ? (coded + 1) / 2 : -coded / 2 + 0;
    if (value < least || value > most) throw this.notAllowed(name, value, this.position - start, least, most);
    return value;
  }

  /** `flt(32)`: binary32, the least significant byte first. */
  flt(name: string): number {
    const bytes = new DataView(new ArrayBuffer(4));
    bytes.setUint32(0, this.take(32, name));
    return bytes.getFloat32(0, true);
  }

  /** `st(v)`: UTF-8 text and a zero byte, from a byte boundary on. */
  st(name: string, longest: number): string {
    const start = this.aligned(name);
    const end = this.data.subarray(0, start + longest + 1).indexOf(0, start);
    if (end < 0) {
      if (this.data.length - start > longest) throw new LimitError("nameLength", longest + 1, longest, this.where(name));
      throw this.error(TruncatedError, "the text has no end", name, { expected: "a zero byte inside the unit", rule: "text" });
    }
    try {
      const text = UTF8.decode(this.data.subarray(start, end));
      this.position = 8 * (end + 1);
      return text;
    } catch {
      throw this.error(ElementValueError, "not UTF-8 text", name, { expected: "UTF-8 text", rule: "text" });
    }
  }

  /** `bs(v)`: all bytes that are left, as a view. */
  bs(name: string): Uint8Array {
    const start = this.aligned(name);
    this.position = 8 * this.data.length;
    return this.data.subarray(start);
  }

  /** `count` elements `u(1)` from a byte boundary on, packed as they stand. */
  mask(count: number, name: string): Uint8Array {
    this.expect(count, 1, name);
    const start = this.aligned(name);
    const packed = this.data.slice(start, start + Math.ceil(count / 8));
    if (count % 8) packed[packed.length - 1]! &= 0xff00 >> count % 8;
    this.position += count;
    return packed;
  }

  /** `byte_alignment()`: a one, then zeros up to the next byte. */
  byteAlignment(): void {
    const bits = 8 - (this.position % 8);
    if (this.take(bits, "byte_alignment") !== 1 << (bits - 1)) {
      this.position -= bits;
      throw this.error(AlignmentError, "wrong bits", "byte_alignment", { expected: `1${"0".repeat(bits - 1)}` });
    }
  }

  /** Refuse a number of elements that the rest of the unit cannot hold. */
  expect(count: number, bits: number, name: string): void {
    const left = 8 * this.data.length - this.position;
    if (count * bits > left) throw this.error(TruncatedError, `${count} elements cannot follow in ${left} bits`, name);
  }

  /** The place of the next byte. */
  aligned(name = "payload"): number {
    if (this.position % 8) throw this.error(AlignmentError, "not at a byte boundary", name);
    return this.position / 8;
  }

  /** The first of several readings that ends with the data, or where as many units fill the rest. */
  firstFit<T>(variants: readonly T[], run: (variant: T) => void, rule: string, units = 0): T {
    const place = this.position;
    let problem: BitstreamError | LimitError | undefined;
    for (const variant of variants) {
      try {
        run(variant);
        if (this.restIs(units)) return variant;
      } catch (error) {
        if (!(error instanceof BitstreamError || error instanceof LimitError)) throw error;
        problem ??= error;
      }
      this.rewind(place);
    }
    if (problem instanceof BitstreamError) throw GENERAL_RULES.includes(problem.rule) ? problem.breaking(rule) : problem;
    const message = units ? `not ${units} units to the end` : "bytes follow the last element";
    throw problem ?? this.error(UnitSizeError, message, "nnr_unit_size", { rule });
  }

  illegal(name: string, what: string, place: Place = {}): ElementValueError {
    return this.error(ElementValueError, what, name, place);
  }

  error<E extends BitstreamError>(kind: new (what: string, place: Place) => E, what: string, element: string, place: Place = {}): E {
    const found = { unit: this.unit, bitOffset: this.position, element, ...place };
    return new kind(what, { ...found, bitOffset: this.base + this.scale * found.bitOffset! });
  }

  protected rewind(position: number): void {
    this.position = position;
  }

  private restIs(units: number): boolean {
    if (this.position % 8) return false;
    let place = this.position / 8;
    for (let i = 0; i < units; i++) {
      const size = sizeOfUnit(this.data, place);
      if (size === undefined || size < 3) return false;
      place += size;
    }
    return place === this.data.length;
  }

  private take(bits: number, name: string): number {
    this.require(bits, name);
    let value = 0;
    for (let left = bits; left > 0; ) {
      const room = 8 - (this.position % 8);
      const count = Math.min(left, room);
      const octet = this.data[Math.floor(this.position / 8)]!;
      value = value * 2 ** count + ((octet >> (room - count)) & ((1 << count) - 1));
      this.position += count;
      left -= count;
    }
    return value;
  }

  private golomb(k: number, name: string): number {
    const start = this.position;
    let zeros = 0;
    while (zeros <= LONGEST_PREFIX && this.position < 8 * this.data.length && this.take(1, name) === 0) zeros++;
    const end = this.position;
    this.position = start;
    if (zeros > LONGEST_PREFIX) {
      const place = { expected: `at most ${LONGEST_PREFIX} zero bits`, rule: "golomb-prefix" };
      throw this.error(ElementValueError, "the value is too large", name, place);
    }
    if (end + zeros + k > 8 * this.data.length || end === start + zeros) throw this.error(TruncatedError, "the value has no end", name);
    this.position = end;
    return (2 ** zeros - 1) * 2 ** k + this.take(zeros + k, name);
  }

  private require(bits: number, name: string): void {
    const left = 8 * this.data.length - this.position;
    if (bits > left) throw this.error(TruncatedError, `${bits} bits wanted, ${left} left`, name);
  }

  private notAllowed(name: string, value: number, bits: number, least: number, most: number): ElementValueError {
    const expected = least > most ? "no value at all" : least === most ? `${least}` : `${least}..${most}`;
    return this.illegal(name, `the value ${value} is not allowed`, { expected, bitOffset: this.position - bits });
  }

  private where(name: string): string {
    return this.unit === undefined ? name : `unit ${this.unit}, ${name}`;
  }
}

/** The size that a unit's first 2 or 4 bytes tell; undefined if they are not there. */
export function sizeOfUnit(data: Uint8Array, at = 0): number | undefined {
  const [a, b, c, d] = data.subarray(at, at + 4);
  if (a === undefined || b === undefined) return undefined;
  if (a < 128) return 256 * a + b;
  return d === undefined ? undefined : (a - 128) * 2 ** 24 + 65536 * b + 256 * c! + d;
}
