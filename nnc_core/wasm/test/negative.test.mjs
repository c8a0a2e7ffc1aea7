/** What breaks a rule of the bitstream is refused with the error, and by the name, that the rule has. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { BitstreamError, decode, open } from "../dist/index.js";
import { PROJECT } from "./support/corpus.mjs";

const NEGATIVE = JSON.parse(readFileSync(join(PROJECT, "conformance", "negative", "index.json"), "utf8"));

/** Rules that readers do not look at, whose bitstreams break others as well. */
const LENIENT = ["factors-together"];

async function decoded({ hex, beside }) {
  const data = new Uint8Array(Buffer.from(hex, "hex"));
  const file = await open(data, { inputParameters: beside });
  await file.topology();
  await file.modelInfo();
  for await (const tensor of file.decodeAll()) assert.ok(tensor.data.length);
  return decode(data, { inputParameters: beside });
}

test("every negative bitstream is refused where readers must refuse it", async (t) => {
  for (const negative of NEGATIVE) {
    const { rule, kind, optional, example, profile } = negative;
    await t.test(`${rule}: ${example}`, async () => {
      if (profile) return;
      const error = await decoded(negative).then(() => undefined, (refused) => refused);
      if (error === undefined) assert.ok(optional, "it was decoded");
      else {
        assert.ok(error instanceof BitstreamError, String(error));
        if (!LENIENT.includes(rule)) assert.deepEqual([error.name, error.rule], [kind, rule]);
        assert.equal(typeof error.place.unit, "number");
        assert.ok(error.place.bitOffset >= 0);
      }
    });
  }
});
