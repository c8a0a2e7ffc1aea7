/** A data unit as its tensors: what is coded of each, and what shapes and types they have when delivered. */
import { PayloadType, product } from "./context.js";
import type { Quantization, SyntaxContext } from "./context.js";
import { codedShapes, isDecomposed } from "./data_unit.js";
import type { Codebook, DataUnitHeader } from "./data_unit.js";
import { UnsupportedError } from "./errors.js";
import { namedMembers, PAYLOAD_ORDER } from "./members.js";
import type { Member } from "./members.js";

/** The name of a data type; a float16 tensor has its bit patterns in a `Uint16Array`. */
export type Dtype =
  | "int8" | "int16" | "int32" | "int64" | "uint8" | "uint16" | "uint32" | "uint64" | "float16" | "float32" | "float64";

export type TensorData =
  | Int8Array | Int16Array | Int32Array | BigInt64Array | Uint8Array | Uint16Array | Uint32Array | BigUint64Array
  | Float32Array | Float64Array;

/** One coded tensor of a data unit: its name, its place in the block, and the shape that it is coded in. */
export interface Part {
  name: string;
  member: Member;
  shape: number[];
  codebook: Codebook | undefined;
}

/** One or several tensors that are coded together: an NNR_NDU, or all parts of one. It can be sent to a worker. */
export interface DataUnit {
  index: number;
  /** Bytes of all units together. */
  size: number;
  header: DataUnitHeader;
  general_profile_idc: number;
  quantization: Quantization | undefined;
  parts: Part[];
  payload: Uint8Array;
  /** Where the payload begins in the first unit, in bits. */
  payloadPlace: number;
}

/** The coded tensors of a data unit in payload order. */
export function partsOf(h: DataUnitHeader, ctx: SyntaxContext): Part[] {
  const shapes = codedShapes(h, ctx);
  if (h.payload_type !== PayloadType.BLOCK) {
    return [{ name: h.names[0]!, member: "weight", shape: shapes[0]!, codebook: h.codebook }];
  }
  const names = new Map(namedMembers(h.compressed_parameter_types, h.names.length).map((member, i) => [member, h.names[i]!]));
  const shape = new Map<Member, number[]>(names.has("G") ? [["G", shapes[0]!], ["H", shapes[1]!]] : [["weight", shapes[0]!]]);
  const books = new Map<Member, Codebook | undefined>([["weight", h.codebook], ["G", h.codebook], ["H", h.codebook_h]]);
  const vector = [h.tensor_dimensions[0]!];
  return PAYLOAD_ORDER.filter((member) => names.has(member)).map((member) => {
    return { name: names.get(member)!, member, shape: shape.get(member) ?? vector, codebook: books.get(member) };
  });
}

/** Whether a quantization parameter precedes each tensor of the payload. */
export const isQuantized = (h: DataUnitHeader): boolean => h.payload_type === PayloadType.FLOAT || h.payload_type === PayloadType.BLOCK;

const FORMATS: readonly Dtype[] = ["int32", "float32", "int8", "int8", "int8", "int8", "int16", "int64", "float16", "float64"];

/** The data type of the tensors of a unit: what it asks for, if that is of the coded kind; otherwise int32 or float32. */
export function unitDtype(h: DataUnitHeader): Dtype {
  const usual = h.payload_type === PayloadType.INT ? "int32" : "float32";
  const wanted = FORMATS[h.data_format ?? -1] ?? usual;
  return wanted[0] === usual[0] ? wanted : usual;
}

export const BYTES: Record<Dtype, number> = {
  int8: 1, int16: 2, int32: 4, int64: 8, uint8: 1, uint16: 2, uint32: 4, uint64: 8, float16: 2, float32: 4, float64: 8,
};

/** Whether a tensor is returned in the shape that it is coded in. */
export const stays = (part: Part, h: DataUnitHeader): boolean =>
  h.first_tensor_dimension_shift === 0 || part.member !== "weight" || isDecomposed(h);

/** How the one coded tensor is cut up into several; undefined where it is not. */
export const cuts = (h: DataUnitHeader) => (isDecomposed(h) ? undefined : h.mapping);

/** The shapes of the tensors of a unit, by name and in header order. */
export function outputShapes(unit: DataUnit): Map<string, readonly number[]> {
  const h = unit.header;
  const mapping = cuts(h);
  if (mapping) {
    const shapes = cutShapes(h.tensor_dimensions, mapping);
    return new Map(h.names.map((name, i) => [name, shapes[i]!]));
  }
  const coded = new Map(unit.parts.map((part) => [part.name, stays(part, h) ? part.shape : h.tensor_dimensions]));
  return new Map(h.names.map((name) => [name, coded.get(name) ?? h.tensor_dimensions]));
}

/** The bytes of the tensors of a unit. */
export function outputBytes(unit: DataUnit): number {
  const elements = [...outputShapes(unit).values()].map(product).reduce((all, count) => all + count, 0);
  return elements * BYTES[unitDtype(unit.header)];
}

/** The shapes of the pieces, after their axes were exchanged. */
export function cutShapes(shape: readonly number[], mapping: NonNullable<DataUnitHeader["mapping"]>): number[][] {
  const axis = mapping.concatenation_axis_index;
  const starts = [0, ...mapping.split_index];
  return mapping.shifts.map((shifts, i) => {
    const piece = [...shape];
    piece[axis] = (starts[i + 1] ?? shape[axis]!) - starts[i]!;
    for (const [index, value] of shifts) exchange(piece, index, index + value);
    return piece;
  });
}

export function exchange<T>(list: T[], i: number, j: number): void {
  [list[i], list[j]] = [list[j]!, list[i]!];
}

export function checkSupported(h: DataUnitHeader): void {
  if (h.several && h.payload_type !== PayloadType.BLOCK && !cuts(h)) {
    throw new UnsupportedError("several topology elements without topology_tensor_dimension_mapping");
  }
}

