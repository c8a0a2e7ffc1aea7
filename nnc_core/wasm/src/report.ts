/** The data of the page of `nnc report`, for a bitstream whose original is not at hand: see nnc_adapters/report. */
import { isQuantized } from "./block.js";
import type { DataUnit } from "./block.js";
import { PayloadType, product, StorageFormat, UNIT_NAMES, UnitType } from "./context.js";
import { decodeLevels } from "./decoder.js";
import { decoderModule, Engine } from "./engine.js";
import { UnsupportedError, UpdateError } from "./errors.js";
import type { NnrFile, TensorInfo } from "./file.js";
import { histogram } from "./histogram.js";
import type { Histogram } from "./histogram.js";
import { markOf } from "./marks.js";
import { traced } from "./trace.js";
import type { TracedElement } from "./trace.js";
import { stepSize } from "./values.js";
import type { UnitRecord } from "./walk.js";

const MOST_ELEMENTS = 1000;
const MOST_HEAD = 4096;
const OF_PAYLOAD = 64;
const LONGEST = 200;

/** Where bytes go: payloads of tensors, descriptions of the model, names, and everything else. */
type Bytes = [weights: number, topology: number, names: number, headers: number];

/** A tensor as the page takes it; see `_tensor` in nnc_adapters/report/page.py. */
export interface TensorReport {
  name: string;
  shape: readonly number[];
  dtype: string;
  kind: string;
  elements: number;
  bytes: Bytes;
  units: number[];
  qp?: number;
  step?: number;
  exact?: string;
  levels?: Histogram;
}

export interface Report {
  original: null;
  streams: [{ label: string; bytes: Bytes; before: null; weights: number; sqnr: null; topology: null; tensors: TensorReport[] }];
  units: unknown[][];
  shapes: number[][];
  words: string[];
}

/** Report on a bitstream, which `label` names; `progress` is told how many of its data units are done, and may wait. */
export async function report(file: NnrFile, label: string, progress: (done: number, all: number) => void | Promise<void> = () => {}): Promise<Report> {
  const units = file.walk.units.map((unit) => {
    const elements = traced(file.data, unit);
    return { unit, elements, bytes: bytesOf(unit, elements) };
  });
  const known = new Known();
  const rows = units.map(({ unit, elements }) => unitRow(file.data, unit, elements, known));
  const tensors = tensorReports(file, units.map(({ bytes }) => bytes), await levelsOf(file, progress));
  const stream = {
    label: printable(label),
    bytes: total(units.map(({ bytes }) => bytes)),
    before: null,
    weights: tensors.reduce((all, { elements }) => all + elements, 0),
    sqnr: null,
    topology: null,
    tensors,
  };
  return { original: null, streams: [stream], units: rows, shapes: known.shapes, words: [...known.words.keys()] };
}

/** What units have in common, by the number that stands for it: names, and lists of elements without values. */
class Known {
  readonly words = new Map<string, number>();
  readonly shapes: number[][] = [];
  private readonly places = new Map<string, number>();

  word(text: string): number {
    const place = this.words.get(text) ?? this.words.size;
    this.words.set(text, place);
    return place;
  }

  shape(elements: readonly TracedElement[]): number {
    const found = elements.flatMap(({ name, descriptor, bitOffset, bits }) => [this.word(name), this.word(descriptor), bitOffset, bits]);
    const key = found.join();
    const place = this.places.get(key) ?? this.shapes.length;
    if (place === this.shapes.length) this.shapes.push(found);
    this.places.set(key, place);
    return place;
  }
}

function unitRow(data: Uint8Array, unit: UnitRecord, all: readonly TracedElement[], known: Known): unknown[] {
  const elements = all.slice(0, MOST_ELEMENTS);
  const head = data.subarray(unit.offset, unit.offset + Math.min(unit.size, unit.payload_offset + OF_PAYLOAD, MOST_HEAD));
  const place = [unit.index, unit.offset, unit.size, unit.payload_offset, unit.within ?? null, all.length - elements.length];
  const title = [typeName(unit).replace(/^NNR_/, ""), kindOf(unit), printable(contentOf(unit, all)).slice(0, LONGEST)];
  return [...place, ...title, btoa(String.fromCharCode(...head)), known.shape(elements), elements.map(({ value }) => shown(value))];
}

function shown(value: unknown): unknown {
  if (value === null) return value;
  if (value instanceof Uint8Array) return `${value.length} bytes`;
  if (typeof value === "number" && Number.isInteger(value)) return value;
  return printable(String(value)).slice(0, LONGEST);
}

const typeName = (unit: UnitRecord): string => UNIT_NAMES[unit.type] ?? String(unit.type);

function kindOf(unit: UnitRecord): string {
  const h = unit.header.data;
  if (!h) return typeName(unit).replace(/^NNR_/, "");
  const tools = [
    ["INT", "FLOAT", "RAW_FLOAT", "BLOCK"][h.payload_type],
    h.dq_flag && "dq",
    h.codebook && "cb",
    h.scan_order > 0 && `s${h.scan_order}`,
    unit.partial_data_counter > 1 && `part ${unit.partial_data_counter}`,
  ];
  return tools.filter(Boolean).join(" ");
}

const STORAGE = ["UNREC", "NNEF", "ONNX", "PYT", "TEF", "PRUN", "REFLIST"];

function contentOf(unit: UnitRecord, elements: readonly TracedElement[]): string {
  const { general_profile_idc, storage_format, compression_format, aggregate } = unit.header;
  if (general_profile_idc !== undefined) return ["BASE", "EXTENDED"][general_profile_idc]!;
  if (storage_format !== undefined) {
    const names = unit.type === UnitType.TPL ? STORAGE.map((name) => `NNR_TPL_${name}`) : STORAGE.slice(0, 5).map((name) => `NNR_QNT_${name}`);
    return `${names[storage_format] ?? storage_format} ${["NNR_PT_RAW", "NNR_DFL"][compression_format!] ?? compression_format}`;
  }
  if (aggregate) return `${["NNR_AGG_GEN", "NNR_AGG_SLF"][aggregate.type] ?? aggregate.type}, ${aggregate.count} units`;
  const value = (name: string): unknown => elements.find((element) => element.name.endsWith(name))?.value;
  const density = value("ps_qp_density");
  return density === undefined ? unit.names.join(" ") : `qp ${value("ps_quantization_parameter")}, qp_density ${density}`;
}

/** The bytes of a unit; those of an aggregate without the units in it. */
function bytesOf(unit: UnitRecord, elements: readonly TracedElement[]): Bytes {
  const payload = unit.size - unit.payload_offset;
  if (unit.type === UnitType.AGG) return [0, 0, 0, unit.payload_offset];
  if (unit.type === UnitType.TPL && unit.header.storage_format === StorageFormat.REFLIST) return [0, 0, payload, unit.payload_offset];
  if (unit.type === UnitType.TPL || unit.type === UnitType.QNT) return [0, payload, 0, unit.payload_offset];
  if (unit.type !== UnitType.NDU) return [0, 0, 0, unit.size];
  const texts = elements.filter(({ name, descriptor }) => descriptor === "st(v)" && name.startsWith("topology_elem_id"));
  const names = texts.reduce((bits, element) => bits + element.bits, 0) / 8;
  return [payload, 0, names, unit.payload_offset - names];
}

const total = (shares: readonly Bytes[]): Bytes => [0, 1, 2, 3].map((kind) => shares.reduce((all, share) => all + share[kind]!, 0)) as Bytes;

/** The bytes of a block divided among its tensors in proportion to their elements; nothing is lost. */
function sharedOut(whole: Bytes, elements: readonly number[]): Bytes[] {
  const all = elements.reduce((sum, count) => sum + count, 0);
  const shares = elements.map((count) => whole.map((bytes) => Math.floor((bytes * count) / all)) as Bytes);
  const given = total(shares);
  shares[0] = shares[0]!.map((bytes, kind) => bytes + whole[kind]! - given[kind]!) as Bytes;
  return shares;
}

function tensorReports(file: NnrFile, bytes: readonly Bytes[], levels: ReadonlyMap<string, Levels>): TensorReport[] {
  const first = new Map(file.walk.dataUnits.map((unit) => [unit.index, unit]));
  const carriers = carriersOf(file);
  const blocks = new Map<number, TensorInfo[]>();
  for (const info of file.tensors.values()) blocks.set(info.unit, [...(blocks.get(info.unit) ?? []), info]);
  return [...blocks.values()].flatMap((infos) => {
    const units = carriers.get(infos[0]!.name)!;
    const shares = sharedOut(total(units.map((index) => bytes[index]!)), infos.map(({ shape }) => product(shape)));
    return infos.map((info, i) => tensorReport(info, first.get(info.unit)!, units, shares[i]!, levels.get(info.name)));
  });
}

function tensorReport(info: TensorInfo, unit: DataUnit, units: number[], bytes: Bytes, levels: Levels | undefined): TensorReport {
  const density = unit.quantization?.qp_density;
  const qp = levels?.qp;
  const found: TensorReport = {
    name: printable(info.name),
    shape: info.shape,
    dtype: info.dtype,
    kind: info.payload_type.replace("NNR_PT_", "") + (info.dq_flag ? " dq" : ""),
    elements: product(info.shape),
    bytes,
    units,
  };
  if (qp !== undefined) Object.assign(found, { qp, step: Number(stepSize(qp, density!).toPrecision(5)) });
  const form = exactForm(unit, qp);
  if (form) found.exact = `stored losslessly: ${form}`;
  if (levels?.histogram) found.levels = levels.histogram;
  return found;
}

/** The indices of the units of each tensor, all parts of them. */
function carriersOf(file: NnrFile): Map<string, number[]> {
  const found = new Map<string, number[]>();
  for (const { names, index } of file.walk.units) {
    for (const name of names.length === 1 ? [markOf(names[0]!).tensor] : names) found.set(name, [...(found.get(name) ?? []), index]);
  }
  return found;
}

const PARTS: Record<string, (dtype: string) => string> = {
  none: (dtype) => `bits of ${dtype}`,
  exponent: (dtype) => `exponents of ${dtype}`,
  rest: () => "signs and mantissas",
  index: () => "places in a palette",
  palette: (dtype) => `palette of ${dtype}`,
  places: () => "places of exceptions",
  values: () => "exceptions",
  value: () => "integers",
};

/** In which form exact values travel; empty where they are quantized, or nothing tells. */
function exactForm(unit: DataUnit, qp: number | undefined): string {
  const h = unit.header;
  const mark = markOf(h.names[0]!);
  if (PARTS[mark.part]) return PARTS[mark.part]!(mark.dtype);
  if (h.payload_type === PayloadType.INT) return "integers";
  if (h.payload_type === PayloadType.RAW_FLOAT) return "raw floats";
  const density = unit.quantization?.qp_density ?? 0;
  if (h.dq_flag || qp === undefined || qp % (1 << density)) return "";
  return `multiples of ${general(stepSize(qp, density))}`;
}

/** As C's %g: six digits, the exponent with two. */
function general(value: number): string {
  const exponent = Math.floor(Math.log10(value));
  if (exponent >= -4 && exponent < 6) return String(Number(value.toPrecision(6)));
  return value.toExponential(5).replace(/\.?0+e/, "e").replace(/e([+-])(\d)$/, "e$10$2");
}

interface Levels {
  qp: number | undefined;
  histogram: Histogram | undefined;
}

/** The quantization parameter of the first tensor of each unit, and how often each level comes in all tensors. */
async function levelsOf(file: NnrFile, progress: (done: number, all: number) => void | Promise<void>): Promise<Map<string, Levels>> {
  const engine = new Engine(await decoderModule());
  const found = new Map<string, Levels>();
  const units = file.walk.dataUnits;
  for (const [done, unit] of units.entries()) {
    for (const [name, levels] of ofUnit(unit, engine)) if (!found.has(name)) found.set(name, levels);
    await progress(done + 1, units.length);
  }
  return found;
}

function ofUnit(unit: DataUnit, engine: Engine): Map<string, Levels> {
  const h = unit.header;
  const found = new Map<string, Levels>();
  if (h.payload_type === PayloadType.RAW_FLOAT) return found;
  const dependent = h.dq_flag && isQuantized(h) && !h.codebook;
  try {
    decodeLevels(unit, engine, undefined, (part, qp, { levels }) => {
      const own = found.size ? undefined : qp;
      found.set(markOf(part.name).tensor, { qp: own, histogram: histogram(levels, dependent) });
    });
  } catch (error) {
    if (!(error instanceof UpdateError || error instanceof UnsupportedError)) throw error;
    return new Map();
  }
  return found;
}

/** Escape what is not printable: names come out of files. */
export const printable = (text: string): string =>
  text.replace(/[^\P{C}]|[^\P{Z} ]/gu, (letter) => {
    const code = letter.codePointAt(0)!;
    const named = { 9: "\\t", 10: "\\n", 13: "\\r" }[code];
    const [mark, digits] = code < 256 ? ["x", 2] : code < 65536 ? ["u", 4] : ["U", 8];
    return named ?? `\\${mark}${code.toString(16).padStart(digits as number, "0")}`;
  });
