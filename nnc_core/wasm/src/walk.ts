/** The walk over the units of a bitstream: what is in force, and which rules are broken (clauses 6.3 and 6.4). */
import { aggregateUnitHeader } from "./aggregate.js";
import { partsOf } from "./block.js";
import type { DataUnit } from "./block.js";
import { PayloadType, product, StorageFormat, UNIT_NAMES, UnitType } from "./context.js";
import type { InputParameters, SyntaxContext } from "./context.js";
import { codedShapes, dataUnitHeader, decompositionOf, isDecomposed } from "./data_unit.js";
import type { DataUnitHeader } from "./data_unit.js";
import { TruncatedError, UnitOrderError, UnitSizeError } from "./errors.js";
import type { Place } from "./errors.js";
import { inflate, joined } from "./inflate.js";
import { within } from "./limits.js";
import type { Limits } from "./limits.js";
import { layerParameterSet, modelParameterSet, startUnit } from "./parameter_sets.js";
import type { ParameterSet } from "./parameter_sets.js";
import { Reader, sizeOfUnit } from "./reader.js";
import { pruningTopologyContainer, topologyElementsIdsList } from "./topology.js";
import type { Pruning } from "./topology.js";

/** What a unit says before its payload; which of these there is depends on its type. */
export interface Header {
  general_profile_idc?: number;
  parameters?: ParameterSet;
  storage_format?: number;
  compression_format?: number;
  data?: DataUnitHeader;
  aggregate?: { type: number; count: number; types: number[] | undefined };
}

/** One unit: `size` bytes from `offset` on, the payload from `payload_offset` on, which counts from the unit's start. */
export interface UnitRecord {
  index: number;
  offset: number;
  size: number;
  type: number;
  header: Header;
  payload_offset: number;
  partial_data_counter: number;
  in_parts: boolean;
  names: readonly string[];
  /** The index of the aggregate unit that it stands in. */
  within: number | undefined;
  ctx: SyntaxContext;
  mps: ParameterSet | undefined;
}

/** The payload of a topology or quantization unit, its parts joined. */
export interface Description {
  unit: UnitRecord;
  payload: Uint8Array;
}

const IN_PARTS: readonly number[] = [UnitType.TPL, UnitType.QNT, UnitType.NDU];
const AFTER_PARAMETERS: readonly number[] = [UnitType.LPS, UnitType.NDU, UnitType.AGG];
const FIRST_ELEMENTS: Record<number, string> = {
  [UnitType.TPL]: "topology_storage_format",
  [UnitType.QNT]: "quantization_storage_format",
  [UnitType.NDU]: "nnr_compressed_data_unit_payload_type",
};

interface Part {
  unit: UnitRecord;
  header: Uint8Array;
  payload: Uint8Array;
}

export class Walk {
  readonly units: UnitRecord[] = [];
  readonly dataUnits: DataUnit[] = [];
  readonly descriptions: Description[] = [];
  ctx: SyntaxContext;
  mps: ParameterSet | undefined;
  private layer: ParameterSet | undefined;
  private readonly names = new Set<string>();
  private references = 0;
  private parts: Part[] = [];
  private announced: (number[] | undefined)[] = [];

  constructor(limits: Limits, inputParameters: (name: string) => InputParameters | undefined) {
    this.ctx = {
      general_profile_idc: 1,
      mps_parent_signalling_enabled_flag: false,
      mps_topology_indexed_reference_flag: false,
      block_partitioning: false,
      topology_elements: [],
      factor_g: undefined,
      quantization: undefined,
      limits,
      inputParameters,
    };
  }

  /** The units of a stretch that begins at `offset` of the bitstream. */
  async all(data: Uint8Array, offset = 0, inside?: number): Promise<void> {
    for (let at = 0; at < data.length || this.units.length === 0; ) {
      const size = this.sizeAt(data, at);
      await this.unit(data.subarray(at, at + size), offset + at, inside);
      at += size;
    }
  }

  /** The size of the unit at a place; the data are all that there is. */
  sizeAt(data: Uint8Array, at: number): number {
    const size = sizeOfUnit(data, at);
    const left = data.length - at;
    const place = { unit: this.units.length, bitOffset: 0, element: "nnr_unit_size" };
    if (size === undefined) throw new TruncatedError(`a size of 2 or 4 bytes wanted, ${left} bytes left`, { ...place, rule: "truncated" });
    if (size <= (data[at]! >= 128 ? 4 : 2)) throw new UnitSizeError(`a unit of ${size} bytes cannot hold its own header`, place);
    if (size > left) throw new TruncatedError(`a unit of ${size} bytes, but ${left} are left`, place);
    return size;
  }

  /** The next unit; those inside an aggregate come with it. */
  async unit(data: Uint8Array, offset: number, inside?: number): Promise<void> {
    const index = this.units.length;
    within(this.ctx.limits, "units", index + 1);
    const r = new Reader(data, index);
    const common = commonHeader(r);
    const start = r.aligned();
    this.enter(index, common.type, data[0]! >= 128 ? 32 : 16);
    const header = readHeader(r, common.type, this.ctx, this.mps);
    const payload_offset = r.aligned();
    const unit: UnitRecord = {
      index,
      offset,
      size: data.length,
      type: common.type,
      header,
      payload_offset,
      partial_data_counter: common.counter,
      in_parts: common.counter > 1 || this.parts.length > 0,
      names: header.data?.names ?? [],
      within: inside,
      ctx: this.ctx,
      mps: this.mps,
    };
    this.units.push(unit);
    const payload = data.subarray(payload_offset);
    await this.note({ unit, header: data.subarray(start, payload_offset), payload });
    if (unit.type === UnitType.AGG) await this.aggregate(unit, payload);
  }

  /** The end of the bitstream. */
  finish(): void {
    this.requireComplete();
  }

  private async aggregate(unit: UnitRecord, payload: Uint8Array): Promise<void> {
    const before = this.layer;
    within(this.ctx.limits, "nesting", this.announced.length + 1, `unit ${unit.index}`);
    this.announced.push(unit.header.aggregate?.types && [...unit.header.aggregate.types]);
    await this.all(payload, unit.offset + unit.payload_offset, unit.index);
    this.requireComplete();
    this.announced.pop();
    this.takeOverParameters(before);
  }

  private enter(index: number, type: number, bitOffset: number): void {
    const refuse = (rule: string, what: string): never => {
      throw new UnitOrderError(what, { unit: index, bitOffset, element: "nnr_unit_type", rule });
    };
    if (index === 0 && type !== UnitType.STR) refuse("start-unit-first", "the bitstream does not begin with an NNR_STR");
    if (index > 0 && type === UnitType.STR) refuse("one-start-unit", "a second NNR_STR");
    if (type === UnitType.MPS && this.mps) refuse("one-model-parameter-set", "a second NNR_MPS");
    if (!this.mps && AFTER_PARAMETERS.includes(type)) refuse("model-parameter-set-first", `an ${UNIT_NAMES[type]} before the NNR_MPS`);
    if (this.parts.length && type !== this.parts[0]!.unit.type) refuse("parts-together", "a unit between the parts of another one");
    const expected = this.announced.at(-1)?.shift();
    if (expected !== undefined && expected !== type) refuse("aggregate-types", `the aggregate has a unit of type ${expected} here`);
  }

  private async note(part: Part): Promise<void> {
    const { unit } = part;
    if (IN_PARTS.includes(unit.type)) {
      await this.notePart(part);
      return;
    }
    if (unit.type < UnitType.TPL && part.payload.length) {
      const place = { bitOffset: 8 * unit.payload_offset, element: "nnr_unit_size", rule: "unit-payload-size" };
      throw new UnitSizeError(`${part.payload.length} bytes follow the last element`, { unit: unit.index, ...place });
    }
    const { general_profile_idc, parameters } = unit.header;
    if (general_profile_idc !== undefined) this.ctx = { ...this.ctx, general_profile_idc };
    if (unit.type === UnitType.MPS) this.mps = parameters;
    if (parameters) this.takeOverParameters(unit.type === UnitType.LPS ? parameters : undefined);
  }

  private takeOverParameters(layer: ParameterSet | undefined): void {
    this.layer = layer;
    const set = layer ?? this.mps!;
    const { qp_density, quantization_parameter } = set;
    this.ctx = {
      ...this.ctx,
      mps_parent_signalling_enabled_flag: set.parent_signalling_enabled_flag,
      mps_topology_indexed_reference_flag: set.topology_indexed_reference_flag,
      block_partitioning: set.unification_flag,
      quantization: qp_density === undefined ? undefined : { qp_density, quantization_parameter: quantization_parameter! },
    };
  }

  private async notePart(part: Part): Promise<void> {
    const { unit } = part;
    const first = FIRST_ELEMENTS[unit.type]!;
    const before = this.parts.at(-1);
    if (before) {
      const expected = before.unit.partial_data_counter - 1;
      if (unit.partial_data_counter !== expected) {
        const what = `part ${unit.partial_data_counter} after part ${before.unit.partial_data_counter}`;
        throw this.misplaced(unit, "parts-in-order", what, "partial_data_counter", { expected: `${expected}` });
      }
      if (!equal(part.header, before.header)) throw this.misplaced(unit, "parts-alike", "the header differs from that of the part before", first);
    }
    this.parts.push(part);
    if (unit.header.data) this.checkData(unit, unit.header.data);
    if (unit.partial_data_counter > 1) return;
    const parts = this.parts;
    this.parts = [];
    const payload = joined(parts.map((each) => each.payload));
    if (unit.header.data) this.addData(parts.map((each) => each.unit), unit.header.data, payload);
    else await this.addDescription(parts[0]!.unit, payload);
  }

  private checkData(unit: UnitRecord, h: DataUnitHeader): void {
    if ((h.payload_type === PayloadType.FLOAT || h.payload_type === PayloadType.BLOCK) && !this.ctx.quantization) {
      throw this.misplaced(unit, "qp-density", "no parameter set in force has a qp_density", FIRST_ELEMENTS[UnitType.NDU]!);
    }
    if (this.parts.length > 1) return;
    const element = `topology_elem_id${this.ctx.mps_topology_indexed_reference_flag ? "_index" : ""}`;
    h.names.forEach((name, j) => {
      if (this.names.has(name)) throw this.misplaced(unit, "tensor-once", "the tensor is coded twice", h.several ? `${element}_list[${j}]` : element, { tensor: name });
      this.names.add(name);
    });
  }

  private addData(units: UnitRecord[], header: DataUnitHeader, payload: Uint8Array): void {
    const first = units[0]!;
    if (header.payload_type === PayloadType.RAW_FLOAT) {
      const shape = codedShapes(header, this.ctx)[0]!;
      const bytes = 4 * product(shape);
      if (payload.length !== bytes) {
        const place = { unit: units.at(-1)!.index, element: "nnr_unit_size", bitOffset: 0, expected: `${bytes} bytes`, rule: "raw-size" };
        throw new UnitSizeError(`${payload.length} payload bytes for dimensions ${shape.join(" x ")}`, place);
      }
    }
    this.dataUnits.push({
      index: first.index,
      size: units.reduce((size, unit) => size + unit.size, 0),
      header,
      general_profile_idc: this.ctx.general_profile_idc,
      quantization: this.ctx.quantization,
      parts: partsOf(header, this.ctx),
      payload,
      payloadPlace: 8 * first.payload_offset,
    });
    const isFactor = header.payload_type !== PayloadType.BLOCK && isDecomposed(header);
    const decomposition = isFactor ? decompositionOf(header) : undefined;
    this.ctx = { ...this.ctx, factor_g: decomposition === this.ctx.factor_g ? undefined : decomposition };
  }

  private async addDescription(unit: UnitRecord, payload: Uint8Array): Promise<void> {
    this.descriptions.push({ unit, payload });
    const { storage_format, compression_format } = unit.header;
    if (unit.type !== UnitType.TPL || storage_format !== StorageFormat.REFLIST) return;
    const data = await inflate(compression_format!, payload, this.ctx.limits, "nameBytes", payloadPlace(unit));
    const names = readTopology(data, unit, compression_format!, (r) => topologyElementsIdsList(r, this.ctx));
    this.references += names.length;
    within(this.ctx.limits, "units", this.references, "topology_elem_id_list");
    this.ctx = { ...this.ctx, topology_elements: names };
  }

  /** What the pruning topology container says; undefined where there is none. */
  async pruning(): Promise<Pruning | undefined> {
    const found = this.descriptions.find(({ unit }) => unit.header.storage_format === StorageFormat.PRUN && unit.type === UnitType.TPL);
    if (!found) return undefined;
    const { unit, payload } = found;
    const format = unit.header.compression_format!;
    const data = await inflate(format, payload, this.ctx.limits, "topologyBytes", payloadPlace(unit));
    return readTopology(data, unit, format, (r) => pruningTopologyContainer(r, unit.ctx), "bit_mask_value", "pruning-size");
  }

  private requireComplete(): void {
    if (!this.parts.length) return;
    const place = { unit: this.units.length, element: "nnr_unit_size", bitOffset: 0, rule: "parts-complete" };
    throw new UnitOrderError("the last parts of a unit are missing", place);
  }

  private misplaced(unit: UnitRecord, rule: string, what: string, element: string, place: Place = {}): UnitOrderError {
    const bitOffset = element === "partial_data_counter" ? (unit.size > 32767 ? 40 : 24) : 8 * headerStart(unit);
    return new UnitOrderError(what, { unit: unit.index, bitOffset, element, rule, ...place });
  }
}

/** Where the payload of a unit begins, for errors. */
export const payloadPlace = (unit: UnitRecord): Place => ({ unit: unit.index, bitOffset: 8 * unit.payload_offset });

const headerStart = (unit: UnitRecord): number => (unit.size > 32767 ? 5 : 3) + (unit.partial_data_counter ? 1 : 0);

/** `nnr_unit_size()` and the part of `nnr_unit_header()` that all units share. */
export function commonHeader(r: Reader): { type: number; counter: number } {
  r.u(r.flag("nnr_unit_size_flag") ? 31 : 15, "nnr_unit_size");
  const type = r.u(6, "nnr_unit_type");
  r.flag("independently_decodable_flag");
  return { type, counter: r.flag("partial_data_counter_present_flag") ? r.u(8, "partial_data_counter") : 0 };
}

/** What stands between the common header and the payload; all of a parameter set. */
export function readHeader(r: Reader, type: number, ctx: SyntaxContext, mps: ParameterSet | undefined): Header {
  switch (type) {
    case UnitType.STR:
      return { general_profile_idc: startUnit(r) };
    case UnitType.MPS:
      return { parameters: modelParameterSet(r, ctx) };
    case UnitType.LPS:
      return { parameters: layerParameterSet(r, mps!) };
    case UnitType.TPL:
    case UnitType.QNT: {
      const kind = type === UnitType.TPL ? "topology" : "quantization";
      return { storage_format: r.u(8, `${kind}_storage_format`), compression_format: r.u(8, `${kind}_compression_format`) };
    }
    case UnitType.NDU:
      return { data: dataUnitHeader(r, ctx) };
    case UnitType.AGG:
      return { aggregate: aggregateUnitHeader(r, ctx) };
    default:
      return {};
  }
}

function readTopology<T>(data: Uint8Array, unit: UnitRecord, format: number, read: (r: Reader) => T, element = "topology_elem_id_list", rule = "reference-list-size"): T {
  const r = new Reader(data, unit.index, 8 * unit.payload_offset, format ? 0 : 1);
  const found = read(r);
  if (r.aligned() !== data.length) throw r.error(UnitSizeError, `bytes follow the last ${element}`, element, { rule });
  return found;
}

const equal = (a: Uint8Array, b: Uint8Array): boolean => a.length === b.length && a.every((octet, i) => octet === b[i]);
