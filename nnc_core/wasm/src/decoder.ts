/** From data units to tensors: levels out of the payload, values out of the levels. */
import { checkSupported, isQuantized } from "./block.js";
import type { DataUnit, Part } from "./block.js";
import { PayloadType, product } from "./context.js";
import type { EntryPoint } from "./data_unit.js";
import type { Engine, Payload, TensorParameters } from "./engine.js";
import { BitstreamError, ElementValueError, PayloadError, TruncatedError, UpdateError } from "./errors.js";
import { checkParent, NO_HISTORY } from "./history.js";
import type { Histories, History } from "./history.js";
import { isWeight } from "./members.js";
import { delivered, reconstructed } from "./values.js";
import type { Coded, Tensor } from "./values.js";

/** No bin costs less than 1 / 177 of a bit: the least probable symbol has 2 of at most 511 parts of the range. */
const MOST_BINS_PER_BYTE = 8 * 177;

/** The tensors of a data unit in header order, and the levels of its parts where they were asked for. */
export interface DecodedUnit {
  tensors: Tensor[];
  levels: Map<string, Int32Array>;
}

/** What is done with each coded tensor; the quantization parameter is undefined for integers. */
export type Use = (part: Part, qp: number | undefined, coded: Coded) => void;

/**
 * Decode and reconstruct the tensors of a data unit.
 *
 * `histories` has what the units before left. Where it is undefined, parents are not checked, and units that need them
 * are refused.
 */
export function decodeUnit(unit: DataUnit, engine: Engine, histories?: Histories): DecodedUnit {
  const levels = new Map<string, Int32Array>();
  const values = new Map<string, Int32Array | Float32Array>();
  const use: Use = (part, qp, coded) => {
    if (histories) levels.set(part.name, coded.levels.slice());
    values.set(part.name, reconstructed(coded, part, qp, unit.quantization?.qp_density ?? 0));
  };
  return placed(unit, () => {
    if (unit.header.payload_type === PayloadType.RAW_FLOAT) values.set(unit.header.names[0]!, rawFloats(unit.payload));
    else decodeLevels(unit, engine, histories, use);
    return { tensors: delivered(unit, values), levels };
  });
}

/** Decode the integers of an arithmetic-coded data unit, in payload order. */
export function decodeLevels(unit: DataUnit, engine: Engine, histories: Histories | undefined, use: Use): void {
  const h = unit.header;
  checkSupported(h);
  const found = unit.parts.map((part) => historyOf(unit, part.name, histories));
  const shapes = unit.parts.map((part, i) => parametersOf(unit, part, found[i]));
  checkPlausible(shapes, unit.payload.length);
  const unknown = found.includes(undefined);
  const qpBits = isQuantized(h) ? 6 + unit.quantization!.qp_density : 0;
  const entryPoints = new EntryPoints(unit);
  try {
    engine.decode(unit.payload, (payload) => {
      unit.parts.forEach((part, i) => {
        decodePart(part, () => {
          const qp = qpBits ? unit.quantization!.quantization_parameter + payload.iae(qpBits) : undefined;
          use(part, qp, tensorOf(payload, shapes[i]!, part, unknown ? unit : undefined, entryPoints));
        });
      });
      decodePart(unit.parts.at(-1)!, () => payload.finish());
    });
  } catch (error) {
    if (unknown && error instanceof BitstreamError) throw missing(unit, h.names[0]!);
    throw error;
  }
  entryPoints.check();
}

/** A coded tensor; `unknown` is the unit where histories are not known. */
function tensorOf(payload: Payload, parameters: TensorParameters, part: Part, unknown: DataUnit | undefined, entryPoints: EntryPoints): Coded {
  const decoded = payload.tensor(parameters);
  if (unknown && decoded.usesHistory) throw missing(unknown, part.name);
  entryPoints.pass(part, decoded.entry_points);
  return { levels: decoded.levels, scaled: (step) => payload.scaled(step) };
}

function placed<T>(unit: DataUnit, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof BitstreamError)) throw error;
    throw error.at({ unit: unit.index, bitOffset: unit.payloadPlace, element: "nnr_compressed_data_unit_payload", tensor: unit.header.names[0] });
  }
}

function decodePart(part: Part, work: () => void): void {
  try {
    work();
  } catch (error) {
    throw error instanceof BitstreamError ? error.at({ tensor: part.name }) : error;
  }
}

const rawFloats = (payload: Uint8Array): Float32Array => new Float32Array(payload.slice().buffer);

/** What is known of the unit's parent; undefined where there ought to be something and nothing is known. */
function historyOf(unit: DataUnit, name: string, histories: Histories | undefined): History | undefined {
  const h = unit.header;
  let history: History | undefined = histories?.get(name) ?? NO_HISTORY;
  if (histories) checkParent(h, name, history);
  else if (h.parent_node_id_present_flag && h.put_node_depth !== 1) history = undefined;
  if (h.temporal_context_modeling_flag && !history?.base) throw missing(unit, name);
  return history;
}

const missing = (unit: DataUnit, name: string): UpdateError => {
  const depth = unit.header.put_node_depth;
  const before = depth === undefined ? "" : `: decode update ${depth - 1} first`;
  return new UpdateError("missing", `cannot be decoded without the history of the updates before${before}`, name);
};

function parametersOf(unit: DataUnit, part: Part, history: History | undefined): TensorParameters {
  const h = unit.header;
  const [rows, width] = [part.shape[0]!, product(part.shape.slice(1))];
  const base = h.temporal_context_modeling_flag ? history?.base : undefined;
  for (const known of [base, history?.marks]) {
    if (known && known.length !== rows * width) {
      const what = `${rows * width} elements after an update with ${known.length}`;
      throw new ElementValueError(what, { element: "tensor_dimensions", tensor: part.name });
    }
  }
  return {
    rows,
    width,
    general_profile_idc: unit.general_profile_idc,
    cabac_unary_length_minus1: h.cabac_unary_length_minus1,
    dq_flag: h.dq_flag && isQuantized(h), // integers are not quantized, whatever the flag says
    scan_order: h.scan_order,
    parent_node_id_present_flag: h.parent_node_id_present_flag,
    codebook_size: part.codebook?.values.length ?? 0,
    codebook_zero_offset: part.codebook?.zero_offset ?? 0,
    base,
    history: history?.marks,
  };
}

/** Refuse dimensions that so few payload bytes cannot fill, before memory is taken for them. */
function checkPlausible(shapes: readonly TensorParameters[], size: number): void {
  const bins = shapes.map(fewestBins).reduce((all, count) => all + count, 0);
  if (bins <= MOST_BINS_PER_BYTE * (size + 8)) return;
  const described = shapes.map(({ rows, width }) => `${rows} x ${width}`).join(" and ");
  throw new TruncatedError(`${described} elements in ${size} payload bytes`);
}

/** A row can be skipped with one bin. */
function fewestBins({ rows, width, general_profile_idc, codebook_size }: TensorParameters): number {
  if (general_profile_idc === 1 && codebook_size === 1) return 0;
  return general_profile_idc === 1 && rows > 1 && width > 1 ? rows : rows * width;
}

/**
 * Holds the header's list, which others start from, against what was passed.
 *
 * A single row or column has none, whatever the list says. In a block with several block rows of H, but a single one of
 * G, a widespread encoder writes a wrong list, so that it is not looked at.
 */
class EntryPoints {
  private readonly passed: [number, EntryPoint][] = [];
  private start = 0;
  private wrong = false;

  constructor(private readonly unit: DataUnit) {}

  pass(part: Part, found: EntryPoint[]): void {
    const { scan_order } = this.unit.header;
    if (!scan_order || !isWeight(part.member) || this.wrong) return;
    found.forEach((point, j) => this.passed.push([this.start + j, point]));
    this.start += Math.ceil(part.shape[0]! / (4 << scan_order)) - 1;
    this.wrong = part.member === "G" && !found.length;
  }

  check(): void {
    const h = this.unit.header;
    if (this.wrong) return;
    const stated = h.dq_flag && isQuantized(h);
    for (const [j, found] of this.passed) {
      const told = h.entry_points[j];
      const same = told?.bit_offset === found.bit_offset && told.cabac_offset === found.cabac_offset;
      if (same && (!stated || told.dq_state === found.dq_state)) continue;
      const text = ({ bit_offset, cabac_offset, dq_state }: EntryPoint) => `${bit_offset}, ${cabac_offset}, ${dq_state}`;
      throw new PayloadError(`the entry point ${told && text(told)} is wrong`, { element: `cabac_offset[${j}]`, expected: text(found) });
    }
  }
}
