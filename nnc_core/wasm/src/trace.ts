/** Every syntax element of a unit above the arithmetic coder, with its place and bits. */
import { StorageFormat, UnitType } from "./context.js";
import { NncError } from "./errors.js";
import { Reader } from "./reader.js";
import { pruningTopologyContainer, topologyElementsIdsList } from "./topology.js";
import { commonHeader, readHeader } from "./walk.js";
import type { UnitRecord } from "./walk.js";

/** One syntax element as it stands in the bitstream; `bitOffset` counts from the start of the unit. */
export interface TracedElement {
  name: string;
  descriptor: string;
  bitOffset: number;
  bits: number;
  value: unknown;
}

/** The elements of a unit; where it is damaged, those up to there. */
export function traced(data: Uint8Array, unit: UnitRecord): TracedElement[] {
  const tracer = new Tracer(data.subarray(unit.offset, unit.offset + unit.size), unit.index);
  try {
    commonHeader(tracer);
    readHeader(tracer, unit.type, unit.ctx, unit.mps);
    if (!unit.in_parts && unit.header.compression_format === 0) payload(tracer, unit);
  } catch (error) {
    if (!(error instanceof NncError)) throw error;
  }
  return tracer.elements;
}

function payload(tracer: Tracer, unit: UnitRecord): void {
  const format = unit.type === UnitType.TPL ? unit.header.storage_format : undefined;
  if (format === StorageFormat.PRUN) pruningTopologyContainer(tracer, unit.ctx);
  else if (format === StorageFormat.REFLIST) topologyElementsIdsList(tracer, unit.ctx);
  else tracer.bs(unit.type === UnitType.TPL ? "topology_data" : "quantization_data");
}

/** A reader that keeps a list of what it read. */
class Tracer extends Reader {
  readonly elements: TracedElement[] = [];

  override u(bits: number, name: string, least?: number, most?: number): number {
    return this.noted(name, `u(${bits})`, () => super.u(bits, name, least, most));
  }

  override i(bits: number, name: string): number {
    return this.noted(name, `i(${bits})`, () => super.i(bits, name));
  }

  override digest(bits: number, name: string): string {
    return this.noted(name, `u(${bits})`, () => super.digest(bits, name), (digits) => BigInt(`0x${digits}`).toString());
  }

  override ue(k: number, name: string, least?: number, most?: number): number {
    return this.noted(name, `ue(${k})`, () => super.ue(k, name, least, most));
  }

  override ie(k: number, name: string, least?: number, most?: number): number {
    return this.noted(name, `ie(${k})`, () => super.ie(k, name, least, most));
  }

  override flt(name: string): number {
    return this.noted(name, "flt(32)", () => super.flt(name), (value) => (Number.isInteger(value) ? value.toFixed(1) : String(value)));
  }

  override st(name: string, longest: number): string {
    return this.noted(name, "st(v)", () => super.st(name, longest));
  }

  override bs(name: string): Uint8Array {
    return this.noted(name, "bs(v)", () => super.bs(name));
  }

  override mask(count: number, name: string): Uint8Array {
    return this.noted(name, `u(1) x ${count}`, () => super.mask(count, name));
  }

  override byteAlignment(): void {
    this.noted("byte_alignment()", "f(n)", () => super.byteAlignment(), () => null);
  }

  protected override rewind(position: number): void {
    super.rewind(position);
    while ((this.elements.at(-1)?.bitOffset ?? -1) >= position) this.elements.pop();
  }

  private noted<T>(name: string, descriptor: string, read: () => T, value: (found: T) => unknown = (found) => found): T {
    const bitOffset = this.bitOffset;
    const found = read();
    this.elements.push({ name, descriptor, bitOffset, bits: this.bitOffset - bitOffset, value: value(found) });
    return found;
  }
}
