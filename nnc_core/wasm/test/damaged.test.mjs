/** Damaged bitstreams are refused with typed errors, and the decoder goes on as if nothing had been. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { BitstreamError, decode, LimitError, open, PayloadError, TruncatedError, UpdateError, Workers } from "../dist/index.js";
import { PROJECT, modelNames, modelSteps, skip } from "./support/corpus.mjs";
import { chance, damaged, outcome } from "./support/damage.mjs";
import { readNpz } from "./support/npz.mjs";

const FIXTURES = join(PROJECT, "conformance", "fixtures");
const names = readdirSync(FIXTURES).filter((name) => name.endsWith(".nnr"));
const fixture = (name) => new Uint8Array(readFileSync(join(FIXTURES, name)));
/** A bitstream with one tensor of these dimensions, and two bytes of payload. */
function tensorOf(...dimensions) {
  const ue = (k, value) => {
    const bits = Math.floor(Math.log2(value / 2 ** k + 1));
    return "0".repeat(bits) + "1" + (k + bits ? (value - (2 ** bits - 1) * 2 ** k).toString(2).padStart(k + bits, "0") : "");
  };
  const scan = dimensions.length > 1 ? "10" + "0000" : "";
  const header = `000100000${ue(1, dimensions.length)}${dimensions.map((size) => ue(7, size)).join("")}${scan}1`;
  const octets = header.padEnd(Math.ceil(header.length / 8) * 8, "0").match(/.{8}/g).map((bits) => parseInt(bits, 2));
  const unit = [0x16, 0x09, 0x77, 0, ...octets, 0, 0x40];
  return Uint8Array.from([0, 4, 2, 1, 0, 8, 6, 1, 0, 0x40, 0, 0x80, 0, unit.length + 2, ...unit]);
}

const TYPES = fixture("types.nnr");

test("every way to cut a bitstream off is refused, except between units", async () => {
  for (const name of names) {
    const data = fixture(name);
    const ends = new Set((await open(data)).walk.units.map((unit) => unit.offset + unit.size));
    for (let size = 0; size < data.length; size++) {
      const found = await outcome(data.subarray(0, size));
      assert.equal(found === "decoded", ends.has(size), `${name}, ${size} bytes: ${found}`);
    }
  }
});

test("every flipped bit is decoded or refused", async () => {
  for (const name of names) {
    const data = fixture(name);
    for (let bit = 0; bit < 8 * data.length; bit += 11) {
      data[bit >> 3] ^= 1 << bit % 8;
      await outcome(data);
      data[bit >> 3] ^= 1 << bit % 8;
    }
  }
});

test("damaged bitstreams of the corpus are decoded or refused", { skip }, async () => {
  const next = chance(14);
  const steps = modelNames().flatMap(modelSteps).filter((step) => step.bitstream.length < 20_000);
  for (let i = 0; i < 2000; i++) {
    const step = steps[i % steps.length];
    await outcome(damaged(next, step.bitstream), { inputParameters: step.inputParameters });
  }
});

test("a decoder that has refused a payload decodes the next one", async () => {
  const workers = new Workers(1);
  try {
    const broken = TYPES.slice();
    broken[broken.length - 3] ^= 0xff;
    for (let i = 0; i < 3; i++) {
      await assert.rejects(decode(broken, { workers }), BitstreamError);
      assert.equal((await decode(TYPES, { workers })).size, (await open(TYPES)).tensors.size);
    }
  } finally {
    workers.close();
  }
});

test("an error says what is wrong, in which unit, at which bit, and what is expected", async () => {
  const data = fixture("scans.nnr");
  const unit = (await open(data)).walk.units.at(-1);
  const at = unit.offset + unit.payload_offset;
  data.fill(0xff, at, at + 4);
  await assert.rejects(decode(data), (error) => {
    assert.ok(error instanceof PayloadError);
    assert.deepEqual([error.place.unit, error.place.bitOffset, error.rule], [unit.index, 8 * unit.payload_offset, "codeword"]);
    assert.match(error.message, new RegExp(`^unit ${unit.index}, bit ${8 * unit.payload_offset}, nnr_compressed_data_unit_payload, tensor ".*": `));
    return true;
  });
  const start = Uint8Array.of(0, 4, 2, 7);
  await assert.rejects(decode(start), { message: "unit 0, bit 24, general_profile_idc: the value 7 is not allowed (expected 0..1)" });
  const empty = Uint8Array.of(...start.subarray(0, 3), 1, 0, 0, 0, 0);
  await assert.rejects(decode(empty), { message: "unit 1, bit 0, nnr_unit_size: a unit of 0 bytes cannot hold its own header" });
  await assert.rejects(decode(new TextEncoder().encode("# A text")), TruncatedError);
});

test("what a small file may ask for is limited", async () => {
  assert.equal(await outcome(tensorOf(2 ** 20, 2 ** 20)), "LimitError");
  assert.equal(await outcome(tensorOf(2 ** 26)), "TruncatedError"); // before memory is taken
  await assert.rejects(decode(TYPES, { limits: { tensorElements: 3 } }), LimitError);
  await assert.rejects(decode(TYPES, { limits: { decodedBytes: 10 } }), (error) => error instanceof LimitError && error.limit === "decodedBytes");
  await assert.rejects(decode(TYPES, { limits: { units: 2 } }), LimitError);
});

test("an update without the ones before it is refused", { skip }, async () => {
  const [base, first, second] = modelSteps("hdsp_tca_dq1");
  const { history, ...known } = { inputParameters: second.inputParameters };
  await assert.rejects(decode(second.bitstream, { ...known, history: new Map() }), UpdateError);
  let left = new Map();
  for (const step of [base, first, second]) {
    left = await (await open(step.bitstream, { inputParameters: step.inputParameters, history: left })).historyAfter();
  }
  await assert.rejects(decode(second.bitstream, { ...known, history: left }), (error) => error instanceof UpdateError && error.kind === "replay");
});

test("bitstreams of the suite decode to the expected arrays, in all data types", async () => {
  for (const name of names) {
    const expected = readNpz(join(FIXTURES, name.replace(".nnr", ".npz")));
    const decoded = [...(await decode(fixture(name))).values()];
    assert.equal(decoded.length, expected.size);
    decoded.forEach((tensor, i) => {
      const array = expected.get(String(i))();
      assert.deepEqual([tensor.shape.join(), tensor.data.constructor.name], [array.shape.join(), array.data.constructor.name], tensor.name);
      assert.deepEqual(Buffer.from(tensor.data.buffer), Buffer.from(array.data.buffer), tensor.name);
    });
  }
});
