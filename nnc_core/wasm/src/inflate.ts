/** NNR_DFL: what topology units may do to their data (a zlib stream, RFC 1950). */
import type { Place } from "./errors.js";
import { ElementValueError, LimitError, UnitSizeError, UnsupportedError } from "./errors.js";
import type { Limits } from "./limits.js";

const ELEMENT = "topology_data";

/** The data of a topology unit, up to the bytes that `limit` allows; `place` is that of its payload. */
export async function inflate(format: number, payload: Uint8Array, limits: Limits, limit: "topologyBytes" | "nameBytes", place: Place): Promise<Uint8Array> {
  const most = limits[limit];
  if (format > 1) throw new UnsupportedError(`topology_compression_format ${format}`);
  const data = format === 0 ? payload : await inflated(payload, most, { ...place, element: ELEMENT, rule: "deflated-data" });
  if (data.length > most) throw new LimitError(limit, data.length, most, ELEMENT);
  return data;
}

async function inflated(payload: Uint8Array, most: number, place: Place): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  try {
    const stream = new Blob([payload as Uint8Array<ArrayBuffer>]).stream().pipeThrough(new DecompressionStream("deflate"));
    const reader = stream.getReader();
    for (let next = await reader.read(); !next.done && size <= most; next = await reader.read()) {
      chunks.push(next.value);
      size += next.value.length;
    }
    if (size > most) await reader.cancel();
  } catch {
    throw new ElementValueError("damaged compressed data", { ...place, expected: "a zlib stream" });
  }
  const data = joined(chunks);
  // Not every engine refuses what follows the stream; its last bytes are a checksum.
  if (size <= most && checksum(data) !== new DataView(payload.buffer, payload.byteOffset).getUint32(payload.length - 4)) {
    throw new UnitSizeError("bytes follow the zlib stream", place);
  }
  return data;
}

/** Adler-32. */
function checksum(data: Uint8Array): number {
  let [a, b] = [1, 0];
  for (const octet of data) {
    a = (a + octet) % 65521;
    b = (b + a) % 65521;
  }
  return (b * 65536 + a) >>> 0;
}

/** Chunks as one; a single one as it is. */
export function joined(chunks: readonly Uint8Array[]): Uint8Array {
  if (chunks.length === 1) return chunks[0]!;
  const whole = new Uint8Array(chunks.reduce((size, chunk) => size + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.length;
  }
  return whole;
}
