/** The corpus of golden bitstreams in $NNC_SHARED/corpus, and what is skipped where it is absent, or nothing is built. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { readNpz } from "./npz.mjs";

export const PROJECT = fileURLToPath(new URL("../../../..", import.meta.url));
const SHARED = process.env.NNC_SHARED || join(dirname(PROJECT.replace(/\/$/, "")), "shared");
export const CORPUS = join(SHARED, "corpus");

/** The reason why tests of the corpus are skipped; false where it is there. */
export const skip = existsSync(CORPUS) ? false : "no corpus: NNC_SHARED does not lead to one";

const json = (path) => JSON.parse(readFileSync(path, "utf8"));
const cases = (folder, file) => (skip ? [] : readdirSync(folder).filter((name) => existsSync(join(folder, name, file))).sort());

export const modelNames = () => cases(CORPUS, "config.json");

/** The bitstreams of a case, in decoding order. */
export function modelSteps(name) {
  const folder = join(CORPUS, name);
  return json(join(folder, "config.json")).steps.map((config) => ({
    config,
    bitstream: new Uint8Array(readFileSync(join(folder, config.bitstream))),
    expected: readNpz(join(folder, config.expected)),
    /** What is not in the bitstream and must be handed to the decoder, by tensor name. */
    inputParameters: {
      ...Object.fromEntries(Object.entries(config.dimensions_known_from_parent ?? {}).map(([tensor, shape]) => [tensor, { tensor_dimensions: shape }])),
      ...config.out_of_band,
    },
    tensors: new Map(config.tensors.filter((tensor) => !config.skipped_tensors.includes(tensor.name)).map((tensor) => [tensor.name, tensor])),
  }));
}

/** The vectors of the entropy coder. */
export function cabacVectors() {
  return cases(join(CORPUS, "cabac"), "params.json").map((name) => {
    const folder = join(CORPUS, "cabac", name);
    return { name, folder, params: json(join(folder, "params.json")), payload: new Uint8Array(readFileSync(join(folder, "payload.bin"))) };
  });
}
