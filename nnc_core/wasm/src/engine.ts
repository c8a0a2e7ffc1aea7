/** The arithmetic decoder in WebAssembly (clause 10), see api.cpp. */
import type { EntryPoint } from "./data_unit.js";
import { LimitError, PayloadError, TruncatedError } from "./errors.js";

const ADDRESS_SPACE = 2 ** 32;
/** The largest buffer that an instance gives, in bytes. */
const LARGEST = 2 ** 31 - 1;
/** An instance that has taken more memory is given back when its payload is done: memory never shrinks. */
const KEPT = 2 ** 26;

/** What the headers say about a tensor of `rows` x `width`, and what the updates before left of it. */
export interface TensorParameters {
  rows: number;
  width: number;
  general_profile_idc: number;
  cabac_unary_length_minus1: number;
  dq_flag: boolean;
  scan_order: number;
  parent_node_id_present_flag: boolean;
  codebook_size: number;
  codebook_zero_offset: number;
  base?: Int32Array | undefined;
  history?: Uint8Array | undefined;
}

/** The levels of a tensor, which are valid until the next call. */
export interface DecodedLevels {
  levels: Int32Array;
  usesHistory: boolean;
  entry_points: EntryPoint[];
}

interface Exports {
  memory: WebAssembly.Memory;
  _initialize(): void;
  nnc_open(size: number): number;
  nnc_close(session: number): void;
  nnc_payload(session: number): number;
  nnc_message(session: number): number;
  nnc_base(session: number, count: number): number;
  nnc_history(session: number, count: number): number;
  nnc_number(session: number): number;
  nnc_iae(session: number, bits: number): number;
  nnc_tensor(session: number, ...parameters: number[]): number;
  nnc_levels(session: number): number;
  nnc_scaled(session: number, step: number): number;
  nnc_uses_history(session: number): number;
  nnc_entry_point_count(session: number): number;
  nnc_entry_points(session: number): number;
  nnc_finish(session: number): number;
}

/** One instance of the decoder: a thread of its own can have one, and decodes one payload after another. */
export class Engine {
  private exports: Exports | undefined;

  constructor(private readonly module: WebAssembly.Module) {}

  /** Call `use` with a payload; it is closed afterwards. */
  decode<T>(payload: Uint8Array, use: (payload: Payload) => T): T {
    this.exports ??= instantiated(this.module);
    const exports = this.exports;
    let session = 0;
    try {
      session = exports.nnc_open(payload.length) >>> 0;
      if (!session) throw tooLarge(payload.length, "the payload");
      new Uint8Array(exports.memory.buffer).set(payload, exports.nnc_payload(session) >>> 0);
      return use(new Payload(exports, session, payload.length));
    } catch (error) {
      if (error instanceof WebAssembly.RuntimeError) this.exports = undefined;
      throw error;
    } finally {
      if (this.exports) {
        if (session) exports.nnc_close(session);
        if (exports.memory.buffer.byteLength > KEPT) this.exports = undefined;
      }
    }
  }
}

/** A payload that is being decoded: its numbers and tensors, in their order. */
export class Payload {
  private count = 0;

  constructor(private readonly exports: Exports, private readonly session: number, readonly size: number) {}

  /** A signed number of so many equiprobable bins. */
  iae(bits: number): number {
    this.check(this.exports.nnc_iae(this.session, bits), 0);
    return this.exports.nnc_number(this.session);
  }

  tensor(p: TensorParameters): DecodedLevels {
    const { exports, session } = this;
    const count = p.rows * p.width;
    if (4 * count > LARGEST) throw tooLarge(4 * count, "the levels of a tensor");
    if (p.base) this.filled(exports.nnc_base(session, count), Int32Array, p.base);
    if (p.history) this.filled(exports.nnc_history(session, count), Uint8Array, p.history);
    const status = exports.nnc_tensor(
      session,
      p.rows,
      p.width,
      p.general_profile_idc,
      p.cabac_unary_length_minus1,
      Number(p.dq_flag),
      p.scan_order,
      Number(p.parent_node_id_present_flag),
      p.codebook_size,
      p.codebook_zero_offset,
    );
    this.check(status, 4 * count);
    this.count = count;
    const levels = new Int32Array(exports.memory.buffer, exports.nnc_levels(session) >>> 0, count);
    return { levels, usesHistory: exports.nnc_uses_history(session) !== 0, entry_points: this.entryPoints() };
  }

  /** The levels of the last tensor times a step (binary32), in an array of its own; the levels are gone then. */
  scaled(step: number): Float32Array {
    const place = this.exports.nnc_scaled(this.session, step) >>> 0;
    return new Float32Array(this.exports.memory.buffer.slice(place, place + 4 * this.count) as ArrayBuffer);
  }

  /** Check that the codeword ends here, with the payload. */
  finish(): void {
    this.check(this.exports.nnc_finish(this.session), 0);
    const left = this.size - this.exports.nnc_number(this.session);
    if (left) throw new PayloadError(`${left} bytes follow the codeword`);
  }

  private filled<T extends Int32Array | Uint8Array>(place: number, kind: new (buffer: ArrayBuffer, place: number, length: number) => T, values: T): void {
    if (!place) throw tooLarge(values.byteLength, "the history of a tensor");
    new kind(this.exports.memory.buffer as ArrayBuffer, place >>> 0, values.length).set(values as never);
  }

  private entryPoints(): EntryPoint[] {
    const { exports, session } = this;
    const count = exports.nnc_entry_point_count(session);
    const found = new Uint32Array(exports.memory.buffer, exports.nnc_entry_points(session) >>> 0, 3 * count);
    return Array.from({ length: count }, (_, j) => {
      return { bit_offset: found[3 * j]!, cabac_offset: found[3 * j + 1]!, dq_state: found[3 * j + 2]! };
    });
  }

  private check(status: number, bytes: number): void {
    if (status === 0) return;
    if (status === 4) throw tooLarge(bytes, "the levels of a tensor");
    if (status === 1) throw new PayloadError(this.message());
    if (status === 2) throw new TruncatedError(this.message());
    throw new RangeError(this.message());
  }

  private message(): string {
    const start = this.exports.nnc_message(this.session) >>> 0;
    const bytes = new Uint8Array(this.exports.memory.buffer, start);
    return new TextDecoder().decode(bytes.slice(0, bytes.indexOf(0)));
  }
}

const tooLarge = (bytes: number, where: string): LimitError => new LimitError("address space", bytes, ADDRESS_SPACE, where);

function instantiated(module: WebAssembly.Module): Exports {
  const nothing = (): void => {};
  const exit = (code: number): never => {
    throw new WebAssembly.RuntimeError(`the decoder ended with ${code}`);
  };
  const instance = new WebAssembly.Instance(module, {
    env: { emscripten_notify_memory_growth: nothing },
    wasi_snapshot_preview1: { proc_exit: exit },
  });
  const exports = instance.exports as unknown as Exports;
  exports._initialize();
  return exports;
}

let compiled: Promise<WebAssembly.Module> | undefined;

/** The module of the decoder, compiled once: what was provided, or what lies beside this file. */
export function decoderModule(): Promise<WebAssembly.Module> {
  if (!compiled) {
    const loading = compile(new URL("./nnr.wasm", import.meta.url));
    compiled = loading;
    loading.catch(() => (compiled = undefined)); // the next one tries again
  }
  return compiled;
}

/** Provide the module of the decoder, nnr.wasm, where it does not lie beside the script. */
export function provideDecoder(module: WebAssembly.Module | BufferSource): void {
  compiled = module instanceof WebAssembly.Module ? Promise.resolve(module) : WebAssembly.compile(module);
}

async function compile(url: URL): Promise<WebAssembly.Module> {
  if (url.protocol === "file:") {
    const { readFile } = await import("node:fs/promises");
    return WebAssembly.compile(await readFile(url));
  }
  const response = await fetch(url);
  if (!response.ok) throw new Error(`the decoder cannot be loaded: ${url} gives status ${response.status}`);
  return WebAssembly.compile(await response.arrayBuffer());
}
