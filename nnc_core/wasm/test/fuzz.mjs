/** node test/fuzz.mjs [CASES] [SEED]: decodes damaged bitstreams of the corpus and of the fixtures; see damage.mjs. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { decode } from "../dist/index.js";
import { modelNames, modelSteps, PROJECT } from "./support/corpus.mjs";
import { below, chance, damaged, outcome } from "./support/damage.mjs";

const [cases = 10_000, seed = 1] = process.argv.slice(2).map(Number);
const SLOW = 5_000; // milliseconds of CPU time

const FIXTURES = join(PROJECT, "conformance", "fixtures");
const fixtures = readdirSync(FIXTURES).filter((name) => name.endsWith(".nnr"));
const sources = [
  ...fixtures.map((name) => ({ bitstream: new Uint8Array(readFileSync(join(FIXTURES, name))), inputParameters: {} })),
  ...modelNames().flatMap(modelSteps).filter(({ bitstream }) => bitstream.length < 50_000),
];
const [whole] = sources;
const names = [...(await decode(whole.bitstream)).keys()];

const next = chance(seed);
const counts = {};
let slowest = 0;
for (let i = 0; i < cases; i++) {
  const { bitstream, inputParameters } = sources[below(next, sources.length)];
  const data = damaged(next, bitstream);
  const history = next() < 0.5 ? new Map() : undefined;
  const before = process.cpuUsage();
  const found = await outcome(data, { inputParameters, ...(history && { history }) }).catch((error) => {
    console.error(`case ${i} of seed ${seed}: ${Buffer.from(data).toString("hex").slice(0, 4000)}`);
    throw error;
  });
  counts[found] = (counts[found] ?? 0) + 1;
  const { user, system } = process.cpuUsage(before);
  slowest = Math.max(slowest, (user + system) / 1000);
  if (i % 1000 === 0) assert.deepEqual([...(await decode(whole.bitstream)).keys()], names, "the decoder is not what it was");
}
console.log(`${cases} cases of ${sources.length} bitstreams, seed ${seed}, slowest ${Math.round(slowest)} ms:`, counts);
assert.ok(slowest < SLOW);
