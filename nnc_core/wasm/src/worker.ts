/** A worker: decodes the units that it is sent, one after another, with an instance of its own. */
import { decodeUnit } from "./decoder.js";
import type { DecodedUnit } from "./decoder.js";
import { Engine } from "./engine.js";
import { sentError } from "./errors.js";
import type { Answered, Asked } from "./pool.js";

let engine: Engine | undefined;

function answer({ id, module, unit, histories }: Asked): Answered {
  engine ??= new Engine(module);
  try {
    return { id, decoded: decodeUnit(unit, engine, histories) };
  } catch (error) {
    return { id, error: sentError(error) };
  }
}

/** The buffers that are handed over and not copied. */
function buffers(decoded: DecodedUnit | undefined): ArrayBuffer[] {
  const arrays = [...(decoded?.tensors.map((tensor) => tensor.data) ?? []), ...(decoded?.levels.values() ?? [])];
  return [...new Set(arrays.map((array) => array.buffer as ArrayBuffer))];
}

if (typeof self === "undefined") {
  const { parentPort } = await import("node:worker_threads");
  parentPort!.on("message", (asked: Asked) => {
    const answered = answer(asked);
    parentPort!.postMessage(answered, buffers(answered.decoded));
  });
} else {
  self.onmessage = ({ data }: MessageEvent<Asked>) => {
    const answered = answer(data);
    self.postMessage(answered, { transfer: buffers(answered.decoded) });
  };
}
