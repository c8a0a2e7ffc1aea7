/** A bitstream as a mapping of tensors, which are decoded when they are asked for. */
import { outputBytes, outputShapes, unitDtype } from "./block.js";
import type { DataUnit, Dtype } from "./block.js";
import { StorageFormat, UnitType } from "./context.js";
import type { InputParameters } from "./context.js";
import type { DecodedUnit } from "./decoder.js";
import { BitstreamError, UnsupportedError } from "./errors.js";
import { digestsOf, historyAfter, NO_HISTORY } from "./history.js";
import type { Histories, History } from "./history.js";
import { inflate, joined } from "./inflate.js";
import { DEFAULT_LIMITS, following, within } from "./limits.js";
import type { Limits } from "./limits.js";
import { markOf, restored, restoredDtype } from "./marks.js";
import type { PerformanceMaps } from "./parameter_sets.js";
import { ThisThread, Workers } from "./pool.js";
import type { Decoders } from "./pool.js";
import { Arriving, chunksOf } from "./source.js";
import type { Source } from "./source.js";
import { sizeOfUnit } from "./reader.js";
import type { Pruning } from "./topology.js";
import type { Tensor } from "./values.js";
import { payloadPlace, Walk } from "./walk.js";

export interface Options {
  /** Bounds on what the bitstream may ask for. */
  limits?: Partial<Limits>;
  /** What reaches the decoder by other ways than the bitstream, by tensor name. */
  inputParameters?: Record<string, InputParameters>;
  /** What the bitstreams before left: makes this one an update of theirs. */
  history?: Histories;
  /** Workers to decode with, or how many to start for this call; by default everything is decoded in this thread. */
  workers?: Decoders | number;
  /** Called with the bytes that have arrived. */
  onProgress?: (bytes: number) => void;
}

/** What the headers say about a tensor; `size` is that of its units in bytes, `unit` the index of the first. */
export interface TensorInfo {
  name: string;
  shape: readonly number[];
  dtype: Dtype;
  payload_type: string;
  dq_flag: boolean;
  scan_order: number;
  size: number;
  unit: number;
}

/** The description of the model that the bitstream carries, in the terms of a framework. */
export interface Topology {
  storage_format: number;
  data: Uint8Array;
}

/** What a bitstream says of the model beside its tensors. */
export interface ModelInfo {
  general_profile_idc: number;
  topology_elem_id_list: readonly string[];
  base_model_id: string | undefined;
  performance_metric_type: string | undefined;
  validation_set_performance: number | undefined;
  performance_maps: PerformanceMaps;
  pruning: Pruning | undefined;
}

/** Units that are decoded together, and the tensors that they make. */
interface Carrier {
  names: readonly string[];
  units: DataUnit[];
}

const PAYLOAD_NAMES = ["NNR_PT_INT", "NNR_PT_FLOAT", "NNR_PT_RAW_FLOAT", "NNR_PT_BLOCK"];

/** Made by `open`; `tensors` describes the tensors in bitstream order. None of that decodes anything. */
export class NnrFile {
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  private readonly carriers: Carrier[];
  private readonly places = new Map<string, Carrier>();
  private readonly left = new Map<number, Promise<ReadonlyMap<string, History>>>();

  /** @internal */
  constructor(
    readonly data: Uint8Array,
    readonly walk: Walk,
    private readonly options: Options,
    private readonly decoders: Decoders,
  ) {
    const groups = new Map<string, Carrier>();
    for (const unit of walk.dataUnits) addTo(groups, unit);
    this.carriers = [...groups.values()];
    for (const carrier of this.carriers) for (const name of carrier.names) this.places.set(name, carrier);
    this.tensors = new Map(this.carriers.flatMap(infos).map((info) => [info.name, info]));
  }

  /** Decode one tensor; undefined for a name that is not in the bitstream. Tensors of a block are decoded together. */
  async decode(name: string): Promise<Tensor | undefined> {
    const carrier = this.places.get(name);
    if (!carrier) return undefined;
    within(this.walk.ctx.limits, "decodedBytes", bytesOf(carrier), `tensor ${JSON.stringify(name)}`);
    return (await this.decoded(carrier)).find((tensor) => tensor.name === name);
  }

  /** Decode all tensors, in bitstream order; with workers several at a time, and the largest first. */
  async *decodeAll(): AsyncGenerator<Tensor> {
    within(this.walk.ctx.limits, "decodedBytes", this.carriers.map(bytesOf).reduce((all, bytes) => all + bytes, 0));
    if (this.decoders === HERE) {
      for (const carrier of this.carriers) yield* await this.decoded(carrier);
      return;
    }
    const jobs = this.carriers.map((carrier) => this.decoded(carrier));
    for (const job of jobs) job.catch(() => {}); // the first error is the one that counts
    for (const job of jobs) yield* await job;
  }

  /** What the bitstream after this one needs; decodes what was not decoded so far. */
  async historyAfter(): Promise<Histories> {
    const { history } = this.options;
    if (!history) throw new TypeError("the bitstream was opened without a history");
    for (const carrier of this.carriers) if (!this.left.has(carrier.units[0]!.index)) await this.decoded(carrier);
    const after = new Map(history);
    for (const left of this.left.values()) for (const [name, each] of await left) after.set(name, each);
    return after;
  }

  /** The description of the model; undefined where there is none. */
  async topology(): Promise<Topology | undefined> {
    const { REFLIST, PRUN, PRIVATE } = StorageFormat;
    const found = this.walk.descriptions.filter(({ unit }) => {
      const format = unit.header.storage_format!;
      return unit.type === UnitType.TPL && format !== REFLIST && format !== PRUN && format !== PRIVATE;
    });
    if (found.length > 1) throw new UnsupportedError("several topology descriptions in one bitstream");
    if (!found.length) return undefined;
    const [{ unit, payload }] = found as [(typeof found)[0]];
    const { storage_format, compression_format } = unit.header;
    const data = await inflate(compression_format!, payload, this.walk.ctx.limits, "topologyBytes", payloadPlace(unit));
    const empty = compression_format === 0 && data.length === 1 && data[0] === 0;
    return { storage_format: storage_format!, data: empty ? new Uint8Array() : data };
  }

  /** What the bitstream says of the model: performance maps, what was pruned, and the like. */
  async modelInfo(): Promise<ModelInfo> {
    const { ctx, mps } = this.walk;
    return {
      general_profile_idc: ctx.general_profile_idc,
      topology_elem_id_list: ctx.topology_elements,
      base_model_id: mps?.base_model_id,
      performance_metric_type: mps?.performance_metric_type,
      validation_set_performance: mps?.validation_set_performance,
      performance_maps: mps?.performance_maps ?? {},
      pruning: await this.walk.pruning(),
    };
  }

  private async decoded(carrier: Carrier): Promise<Tensor[]> {
    const { history } = this.options;
    const decoded = await Promise.all(carrier.units.map((unit) => this.decoders.decode(unit, history)));
    if (history) carrier.units.forEach((unit, i) => this.left.set(unit.index, leftBy(unit, decoded[i]!, history)));
    return assembled(carrier, decoded);
  }
}

function addTo(groups: Map<string, Carrier>, unit: DataUnit): Carrier {
  const { names } = unit.header;
  const own = names.length === 1 ? [markOf(names[0]!).tensor] : names;
  const key = JSON.stringify(own);
  const carrier = groups.get(key) ?? { names: own, units: [] };
  carrier.units.push(unit);
  groups.set(key, carrier);
  return carrier;
}

const isPlain = ({ names, units }: Carrier): boolean => units.length === 1 && units[0]!.header.names.every((name, i) => name === names[i]);

const bytesOf = (carrier: Carrier): number => carrier.units.map(outputBytes).reduce((all, bytes) => all + bytes, 0);

function assembled(carrier: Carrier, decoded: readonly DecodedUnit[]): Tensor[] {
  if (isPlain(carrier)) return decoded[0]!.tensors;
  const [name] = carrier.names as [string];
  try {
    return [restored(name, decoded.flatMap((each) => each.tensors))];
  } catch (error) {
    throw error instanceof BitstreamError ? error.at({ unit: carrier.units[0]!.index, tensor: name }) : error;
  }
}

async function leftBy(unit: DataUnit, { levels }: DecodedUnit, history: Histories): Promise<ReadonlyMap<string, History>> {
  if (!levels.size) return new Map();
  const digests = await digestsOf(unit.payload);
  return new Map([...levels].map(([name, each]) => [name, historyAfter(history.get(name) ?? NO_HISTORY, unit.header, each, digests)]));
}

function infos(carrier: Carrier): TensorInfo[] {
  const unit = carrier.units[0]!;
  const h = unit.header;
  const mark = markOf(h.names[0]!);
  const dtype = (isPlain(carrier) ? undefined : restoredDtype(mark)) ?? unitDtype(h);
  const shapes = [...outputShapes(unit).values()];
  return carrier.names.map((name, i) => ({
    name,
    shape: !isPlain(carrier) && mark.reversed ? [...shapes[i]!].reverse() : shapes[i]!,
    dtype,
    payload_type: PAYLOAD_NAMES[h.payload_type]!,
    dq_flag: h.dq_flag,
    scan_order: shapes[i]!.length > 1 ? h.scan_order : 0,
    size: carrier.units.reduce((size, each) => size + each.size, 0),
    unit: unit.index,
  }));
}

/** Index a bitstream without decoding anything; the whole of it is fetched. */
export async function open(source: Source, options: Options = {}): Promise<NnrFile> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of chunksOf(source)) {
    chunks.push(chunk);
    options.onProgress?.(chunks.reduce((size, each) => size + each.length, 0));
  }
  const data = joined(chunks);
  const walk = walkOf(options);
  walk.ctx.limits = following(walk.ctx.limits, data.length);
  await walk.all(data);
  walk.finish();
  return new NnrFile(data, walk, options, decodersOf(options)[0]);
}

/** Decode a whole bitstream while it arrives: its tensors by name, in bitstream order. */
export async function decode(source: Source, options: Options = {}): Promise<Map<string, Tensor>> {
  const tensors = new Map<string, Tensor>();
  for await (const tensor of decodeStream(source, options)) tensors.set(tensor.name, tensor);
  return tensors;
}

/**
 * Decode a bitstream while it arrives, tensor by tensor in bitstream order.
 *
 * Limits that follow the size of a bitstream follow what has arrived of it. Units that make one tensor together must
 * follow each other.
 */
export async function* decodeStream(source: Source, options: Options = {}): AsyncGenerator<Tensor> {
  const [decoders, end] = decodersOf(options);
  try {
    yield* new Stream(walkOf(options), options, decoders).tensors(source);
  } finally {
    end();
  }
}

/** A bitstream that is decoded while it arrives. */
class Stream {
  private received = 0;
  private decodedBytes = 0;
  private seen = 0;
  private readonly names = new Set<string>();
  private open: { carrier: Carrier; decoded: Promise<DecodedUnit>[] } | undefined;
  private ready: Promise<Tensor[]>[] = [];

  constructor(private readonly walk: Walk, private readonly options: Options, private readonly decoders: Decoders) {
    this.limits = walk.ctx.limits;
  }

  private readonly limits: Limits;

  async *tensors(source: Source): AsyncGenerator<Tensor> {
    const arriving = new Arriving();
    for await (const chunk of chunksOf(source)) {
      arriving.push(chunk);
      this.received += chunk.length;
      this.options.onProgress?.(this.received);
      await this.units(arriving);
      if (this.decoders === HERE) yield* this.delivered();
    }
    if (arriving.left || !this.walk.units.length) await this.walk.all(arriving.take(arriving.left), this.received - arriving.left);
    this.walk.finish();
    this.start();
    this.close();
    yield* this.delivered();
  }

  /** Take the units that have arrived as a whole. */
  private async units(arriving: Arriving): Promise<void> {
    this.walk.ctx = { ...this.walk.ctx, limits: following(this.limits, this.received) };
    for (;;) {
      const size = sizeOfUnit(arriving.peek(4));
      if (size === undefined || size > arriving.left) return;
      const offset = this.received - arriving.left;
      this.walk.sizeAt(arriving.peek(Math.max(4, size)), 0);
      await this.walk.unit(arriving.take(size), offset);
      this.start();
    }
  }

  /** Start to decode the data units that are new. */
  private start(): void {
    const { dataUnits } = this.walk;
    for (; this.seen < dataUnits.length; this.seen++) {
      const unit = dataUnits[this.seen]!;
      this.decodedBytes += outputBytes(unit);
      within(this.walk.ctx.limits, "decodedBytes", this.decodedBytes);
      this.add(unit);
      dataUnits[this.seen] = { ...unit, payload: new Uint8Array() }; // it is not kept
    }
  }

  private add(unit: DataUnit): void {
    const carrier = addTo(new Map(), unit);
    const key = JSON.stringify(carrier.names);
    if (!this.open || JSON.stringify(this.open.carrier.names) !== key) {
      this.close();
      for (const name of carrier.names) {
        if (this.names.has(name)) throw new UnsupportedError(`a tensor whose units do not follow each other (${name}) in a stream`);
        this.names.add(name);
      }
      this.open = { carrier: { ...carrier, units: [] }, decoded: [] };
    }
    const decoded = this.decoders.decode(unit, this.options.history);
    decoded.catch(() => {}); // awaited below
    this.open.carrier.units.push(unit);
    this.open.decoded.push(decoded);
  }

  /** What was open is complete. */
  private close(): void {
    if (!this.open) return;
    const { carrier, decoded } = this.open;
    this.open = undefined;
    const tensors = Promise.all(decoded).then((units) => assembled(carrier, units));
    tensors.catch(() => {});
    this.ready.push(tensors);
  }

  private async *delivered(): AsyncGenerator<Tensor> {
    for (const tensors of this.ready.splice(0)) yield* await tensors;
  }
}

function walkOf({ limits, inputParameters = {} }: Options): Walk {
  const known = new Map(Object.entries(inputParameters));
  return new Walk({ ...DEFAULT_LIMITS, ...limits }, (name) => known.get(name));
}

/** The decoder of this thread, whose instance serves one call after another. */
const HERE = new ThisThread();

function decodersOf({ workers }: Options): [Decoders, end: () => void] {
  if (workers === undefined || workers === 0) return [HERE, () => {}];
  if (typeof workers !== "number") return [workers, () => {}];
  const own = new Workers(workers);
  return [own, () => own.close()];
}

