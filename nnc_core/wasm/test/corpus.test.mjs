/** Every bitstream of the corpus decodes to exactly the expected tensors, levels and state. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { test } from "node:test";
import { decode, decodeStream, open, Workers } from "../dist/index.js";
import { decoderModule, Engine } from "../dist/engine.js";
import { cabacVectors, modelNames, modelSteps, skip } from "./support/corpus.mjs";
import { readNpy } from "./support/npz.mjs";

const BITSTREAMS = 180;
const VECTORS = 111;

const bytesOf = (array) => Buffer.from(array.buffer, array.byteOffset, array.byteLength);

/** The tensor is the expected one, bit for bit. */
function assertIs(tensor, step) {
  const told = step.tensors.get(tensor.name);
  assert.deepEqual([...tensor.shape], told.shape, tensor.name);
  assert.equal(createHash("sha256").update(bytesOf(tensor.data)).digest("hex"), told.rec_sha256, tensor.name);
  const expected = step.expected.get(`${tensor.name}.rec`)?.();
  if (expected) assert.deepEqual([tensor.data.constructor, bytesOf(tensor.data)], [expected.data.constructor, bytesOf(expected.data)]);
}

test("the corpus has as many bitstreams and vectors as are to be decoded", { skip }, () => {
  assert.equal(modelNames().flatMap(modelSteps).length, BITSTREAMS);
  assert.equal(cabacVectors().length, VECTORS);
});

test("every bitstream decodes to exactly the expected tensors, and leaves the expected state", { skip }, async (t) => {
  for (const name of modelNames()) {
    await t.test(name, async () => {
      let history = new Map();
      for (const step of modelSteps(name)) {
        const file = await open(step.bitstream, { inputParameters: step.inputParameters, history });
        const names = [];
        for await (const tensor of file.decodeAll()) {
          assertIs(tensor, step);
          names.push(tensor.name);
        }
        assert.deepEqual([...names].sort(), [...step.tensors.keys()].sort());
        assert.deepEqual([...file.tensors.keys()], names);
        history = await file.historyAfter();
        assertState(history, step);
      }
    });
  }
});

function assertState(history, step) {
  for (const [key, expected] of step.expected) {
    const [, name, kind] = /^(.*)\.(\w+)$/s.exec(key);
    if (kind === "base") assert.deepEqual(history.get(name).base, expected().data);
    if (kind === "hist") assert.deepEqual(Array.from(history.get(name).marks), Array.from(expected().data));
  }
  const { put_node_depth = {}, parameter_id = {} } = step.config.state_after ?? {};
  for (const [name, depth] of Object.entries(put_node_depth)) {
    assert.deepEqual([history.get(name).depth, history.get(name).parameter_id], [depth, parameter_id[name]]);
  }
}

test("every bitstream decodes alike from a stream in small chunks, with workers", { skip }, async () => {
  const workers = new Workers(2);
  try {
    for (const name of modelNames().filter((each) => modelSteps(each).length === 1)) {
      const [step] = modelSteps(name);
      const options = { inputParameters: step.inputParameters };
      const whole = await decode(step.bitstream, { ...options, workers });
      assert.deepEqual([...whole.keys()].sort(), [...step.tensors.keys()].sort());
      for (const tensor of whole.values()) assertIs(tensor, step);
      let count = 0;
      for await (const tensor of decodeStream(inChunks(step.bitstream, 997), options)) {
        assertIs(tensor, step);
        count++;
      }
      assert.equal(count, step.tensors.size);
    }
  } finally {
    workers.close();
  }
});

async function* inChunks(bytes, size) {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

test("every vector of the entropy coder decodes to exactly its levels", { skip }, async (t) => {
  const engine = new Engine(await decoderModule());
  for (const { name, folder, params, payload } of cabacVectors()) {
    await t.test(name, () => {
      engine.decode(payload, (decoder) => {
        for (const { bits, value } of params.prefix_iae_v) assert.equal(decoder.iae(bits), value);
        for (const layer of params.layers) {
          const [rows, ...rest] = layer.shape;
          const array = (element) => layer[element] && readNpy(join(folder, layer[element])).data;
          const decoded = decoder.tensor({
            rows,
            width: rest.reduce((all, size) => all * size, 1),
            general_profile_idc: params.general_profile_idc,
            cabac_unary_length_minus1: params.cabac_unary_length_minus1,
            dq_flag: layer.dq_flag === 1,
            scan_order: layer.scan_order,
            parent_node_id_present_flag: layer.parent_node_id_present_flag === 1,
            codebook_size: layer.codebook_size,
            codebook_zero_offset: layer.codebook_zero_offset,
            base: array("base") ?? undefined,
            history: layer.hist ? Uint8Array.from(array("hist")) : undefined,
          });
          assert.deepEqual(decoded.levels, array("levels"));
          const points = layer.entry_points_split.map(({ bit_offset, value, dq_state }) => ({ bit_offset, cabac_offset: value, dq_state }));
          assert.deepEqual(decoded.entry_points, points);
        }
        decoder.finish();
      });
    });
  }
});
