/** Decoders that units are given to: one in this thread, or workers with an instance each. */
import { outputBytes } from "./block.js";
import type { DataUnit } from "./block.js";
import { decodeUnit } from "./decoder.js";
import type { DecodedUnit } from "./decoder.js";
import { decoderModule, Engine } from "./engine.js";
import { receivedError } from "./errors.js";
import type { SentError } from "./errors.js";
import type { Histories } from "./history.js";

/** Decodes units; many can be under way at once. */
export interface Decoders {
  decode(unit: DataUnit, histories?: Histories): Promise<DecodedUnit>;
}

/** One decoder in the thread at hand. */
export class ThisThread implements Decoders {
  private engine: Engine | undefined;

  async decode(unit: DataUnit, histories?: Histories): Promise<DecodedUnit> {
    this.engine ??= new Engine(await decoderModule());
    return decodeUnit(unit, this.engine, histories);
  }
}

export interface Asked {
  id: number;
  module: WebAssembly.Module;
  unit: DataUnit;
  histories: Histories | undefined;
}

export type Answered = { id: number; decoded?: DecodedUnit; error?: SentError };

interface Job {
  unit: DataUnit;
  histories: Histories | undefined;
  bytes: number;
  resolve: (decoded: DecodedUnit) => void;
  reject: (error: unknown) => void;
}

/** What browsers' workers and those of Node have in common. */
interface Thread {
  post(message: Asked, transfer: ArrayBuffer[]): void;
  end(): void;
}

/**
 * Workers, each with an instance of the decoder. Of the units that wait, the largest is decoded first.
 *
 * Close them when they are not needed any more. A worker that ends unexpectedly fails its unit, and another takes its place.
 */
export class Workers implements Decoders {
  private readonly waiting: Job[] = [];
  private readonly idle: Thread[] = [];
  private readonly busy = new Map<Thread, Job>();
  private readonly module = decoderModule();
  private starting = 0;
  private closed = false;

  constructor(readonly count: number = defaultCount()) {
    if (!(count >= 1)) throw new RangeError(`${count} workers, expected at least 1`);
  }

  decode(unit: DataUnit, histories?: Histories): Promise<DecodedUnit> {
    if (this.closed) return Promise.reject(new Error("the workers are closed"));
    return new Promise((resolve, reject) => {
      this.waiting.push({ unit, histories, bytes: outputBytes(unit), resolve, reject });
      queueMicrotask(() => void this.next()); // once all that come together are there
    });
  }

  /** End the workers; what they have not decoded fails. */
  close(): void {
    this.closed = true;
    const jobs = [...this.waiting.splice(0), ...this.busy.values()];
    for (const thread of [...this.idle.splice(0), ...this.busy.keys()]) thread.end();
    this.busy.clear();
    for (const job of jobs) job.reject(new Error("the workers are closed"));
  }

  /** Give the units that wait to workers that rest, or to new ones. */
  private async next(): Promise<void> {
    try {
      const module = await this.module;
      while (this.waiting.length && !this.closed) {
        const thread = this.idle.pop();
        if (thread) this.assign(thread, module);
        else if (!(await this.startAnother())) return;
      }
    } catch (error) {
      for (const job of this.waiting.splice(0)) job.reject(error);
    }
  }

  private assign(thread: Thread, module: WebAssembly.Module): void {
    const job = this.largest();
    if (!job) {
      this.idle.push(thread);
      return;
    }
    this.busy.set(thread, job);
    const payload = job.unit.payload.slice();
    thread.post({ id: job.unit.index, module, unit: { ...job.unit, payload }, histories: needed(job) }, [payload.buffer]);
  }

  private largest(): Job | undefined {
    if (!this.waiting.length) return undefined;
    const at = this.waiting.reduce((best, job, i) => (job.bytes > this.waiting[best]!.bytes ? i : best), 0);
    return this.waiting.splice(at, 1)[0];
  }

  private async startAnother(): Promise<boolean> {
    if (this.starting + this.idle.length + this.busy.size >= this.count) return false;
    this.starting++;
    try {
      const thread: Thread = await startThread(
        (answer) => this.finished(thread, answer),
        (error) => this.lost(thread, error),
      );
      if (this.closed) thread.end();
      else this.idle.push(thread);
      return true;
    } finally {
      this.starting--;
    }
  }

  private finished(thread: Thread, { decoded, error }: Answered): void {
    const job = this.busy.get(thread);
    if (!job) return;
    this.busy.delete(thread);
    this.idle.push(thread);
    if (decoded) job.resolve(decoded);
    else job.reject(receivedError(error!));
    void this.next();
  }

  private lost(thread: Thread, error: unknown): void {
    const job = this.busy.get(thread);
    this.busy.delete(thread);
    this.idle.splice(0, this.idle.length, ...this.idle.filter((each) => each !== thread));
    thread.end();
    job?.reject(error);
    void this.next();
  }
}

/** Only what is known of the unit's own tensors is sent. */
function needed({ unit, histories }: Job): Histories | undefined {
  return histories && new Map(unit.header.names.flatMap((name) => (histories.has(name) ? [[name, histories.get(name)!]] : [])));
}

const defaultCount = (): number => Math.min(8, Math.max(1, (globalThis.navigator?.hardwareConcurrency ?? 4) - 1));

async function startThread(answered: (answer: Answered) => void, lost: (error: unknown) => void): Promise<Thread> {
  if (typeof Worker === "undefined") {
    const { Worker: NodeWorker } = await import("node:worker_threads");
    const worker = new NodeWorker(new URL("./worker.js", import.meta.url));
    worker.unref();
    worker.on("message", (answer: Answered) => {
      worker.unref(); // one that rests keeps no program alive
      answered(answer);
    });
    worker.on("error", lost);
    worker.on("exit", () => lost(new Error("a worker has ended")));
    return {
      post: (message, transfer) => {
        worker.ref();
        worker.postMessage(message, transfer);
      },
      end: () => void worker.terminate(),
    };
  }
  const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  worker.onmessage = ({ data }) => answered(data as Answered);
  worker.onerror = (event) => lost(new Error(event.message || "a worker cannot be started"));
  return { post: (message, transfer) => worker.postMessage(message, transfer), end: () => worker.terminate() };
}
