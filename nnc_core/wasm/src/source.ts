/** What a bitstream can come from, as chunks of bytes. */

/** Bytes, a file, or what is being downloaded; a promise of one as well. */
export type Source =
  | Uint8Array
  | ArrayBuffer
  | Blob
  | Response
  | ReadableStream<Uint8Array>
  | AsyncIterable<Uint8Array>
  | Promise<Uint8Array | ArrayBuffer | Blob | Response | ReadableStream<Uint8Array> | AsyncIterable<Uint8Array>>;

/** The bytes as they arrive. */
export async function* chunksOf(source: Source): AsyncGenerator<Uint8Array> {
  const found = await source;
  if (found instanceof Uint8Array) yield found;
  else if (found instanceof ArrayBuffer) yield new Uint8Array(found);
  else if (typeof Blob !== "undefined" && found instanceof Blob) yield* read(found.stream());
  else if (typeof Response !== "undefined" && found instanceof Response) {
    if (!found.ok) throw new Error(`${found.url || "the response"} has status ${found.status}`);
    if (found.body) yield* read(found.body);
  } else if ("getReader" in found) yield* read(found);
  else yield* found as AsyncIterable<Uint8Array>;
}

async function* read(stream: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  const reader = stream.getReader();
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
  } finally {
    await reader.cancel();
  }
}

/** Bytes that arrive in chunks, and are taken unit by unit. */
export class Arriving {
  private chunks: Uint8Array[] = [];
  private size = 0;

  push(chunk: Uint8Array): void {
    this.chunks.push(chunk);
    this.size += chunk.length;
  }

  get left(): number {
    return this.size;
  }

  /** The first bytes, as many as are there. */
  peek(count: number): Uint8Array {
    if ((this.chunks[0]?.length ?? 0) >= Math.min(count, this.size)) return this.chunks[0]?.subarray(0, count) ?? new Uint8Array();
    const found = new Uint8Array(Math.min(count, this.size));
    this.copy(found);
    return found;
  }

  /** Take so many bytes, which must be there. */
  take(count: number): Uint8Array {
    const first = this.chunks[0];
    const found = first && first.length >= count ? first.subarray(0, count) : new Uint8Array(count);
    if (found.buffer !== first?.buffer) this.copy(found);
    this.drop(count);
    return found;
  }

  private copy(target: Uint8Array): void {
    let at = 0;
    for (const chunk of this.chunks) {
      if (at >= target.length) return;
      const part = chunk.subarray(0, target.length - at);
      target.set(part, at);
      at += part.length;
    }
  }

  private drop(count: number): void {
    this.size -= count;
    let whole = 0;
    while (whole < this.chunks.length && count >= this.chunks[whole]!.length) count -= this.chunks[whole++]!.length;
    this.chunks.splice(0, whole);
    if (count) this.chunks[0] = this.chunks[0]!.subarray(count);
  }
}
