/** The arithmetic decoder on its own: what its C interface refuses, and that nothing of that ends an instance. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { decoderModule, Engine } from "../dist/engine.js";
import { LimitError, PayloadError, TruncatedError } from "../dist/index.js";

const [DONE, DAMAGED, TRUNCATED, REFUSED, OUT_OF_MEMORY] = [0, 1, 2, 3, 4];
// Two rows of two zeros, and the end of the codeword.
const SHAPE = { rows: 1, width: 1, general_profile_idc: 0, cabac_unary_length_minus1: 0, dq_flag: false, scan_order: 0 };
const PARAMETERS = { ...SHAPE, parent_node_id_present_flag: false, codebook_size: 0, codebook_zero_offset: 0 };

async function instance() {
  const nothing = () => {};
  const imports = { env: { emscripten_notify_memory_growth: nothing }, wasi_snapshot_preview1: { proc_exit: nothing } };
  const { exports } = await WebAssembly.instantiate(await decoderModule(), imports);
  exports._initialize();
  return exports;
}

/** The status of a tensor with these parameters, in a payload of zeros. */
function status(exports, rows, width, { profile = 1, unary = 10, dq = 0, scan = 0, size = 0, zero = 0, base = -1, bytes = 64 } = {}) {
  const session = exports.nnc_open(bytes);
  assert.ok(session);
  new Uint8Array(exports.memory.buffer, exports.nnc_payload(session), bytes).fill(0);
  if (base >= 0) assert.ok(exports.nnc_base(session, base));
  const found = exports.nnc_tensor(session, rows, width, profile, unary, dq, scan, 0, size, zero);
  exports.nnc_close(session);
  return found;
}

test("sizes beyond the address space are refused, also where their product wraps round", async () => {
  const exports = await instance();
  for (const [rows, width] of [[2 ** 16, 2 ** 16], [2 ** 31, 2], [2 ** 30, 1], [2 ** 16, 2 ** 15], [-1, -1], [2 ** 30 + 1, 4]]) {
    assert.equal(status(exports, rows, width), OUT_OF_MEMORY, `${rows} x ${width}`);
  }
  assert.equal(exports.nnc_open(2 ** 31), 0);
  assert.equal(exports.nnc_open(-1), 0);
  const session = exports.nnc_open(1);
  assert.equal(exports.nnc_base(session, 2 ** 30), 0);
  assert.equal(exports.nnc_history(session, 2 ** 31), 0);
  exports.nnc_close(session);
  assert.ok(exports.memory.buffer.byteLength < 2 ** 25);
});

test("parameters that no header has are refused", async () => {
  const exports = await instance();
  const wrong = [{ profile: 2 }, { profile: -1 }, { unary: 256 }, { unary: -1 }, { scan: 5 }, { scan: -1 }, { size: 3, zero: 3 }, { base: 5 }];
  for (const each of wrong) assert.equal(status(exports, 2, 3, each), REFUSED, JSON.stringify(each));
  assert.equal(status(exports, 2, 3, { base: 6 }), DONE);
  assert.equal(status(exports, 2, 3, { scan: 4, dq: 1, size: 3, zero: 2 }), DONE);
});

test("damaged payloads are refused, and the instance goes on", async () => {
  const exports = await instance();
  for (let i = 0; i < 1000; i++) {
    assert.equal(status(exports, 1000, 1000, { bytes: i % 8, profile: 0 }), TRUNCATED);
    const session = exports.nnc_open(40);
    new Uint8Array(exports.memory.buffer, exports.nnc_payload(session), 40).fill(255);
    assert.equal(exports.nnc_tensor(session, 100, 100, 1, 0, 0, 0, 0, 0, 0), DAMAGED);
    assert.equal(exports.nnc_finish(session), DAMAGED);
    assert.equal(exports.nnc_finish(session), REFUSED);
    assert.equal(exports.nnc_iae(session, 8), REFUSED);
    exports.nnc_close(session);
  }
  assert.equal(status(exports, 2, 3), DONE);
  assert.ok(exports.memory.buffer.byteLength < 2 ** 25, "memory leaks");
});

test("an engine makes typed errors of all that, and one that took much memory gives it back", async () => {
  const engine = new Engine(await decoderModule());
  const tensor = (payload, more) => engine.decode(payload, (decoder) => decoder.tensor({ ...PARAMETERS, ...more }).levels.slice());
  assert.throws(() => tensor(new Uint8Array(9), { rows: 2 ** 30 }), LimitError);
  assert.throws(() => tensor(new Uint8Array(9), { rows: 2 ** 20 }), TruncatedError);
  assert.throws(() => tensor(new Uint8Array(9).fill(255), {}), PayloadError);
  assert.throws(() => tensor(new Uint8Array(9), { scan_order: 9 }), RangeError);
  assert.equal(tensor(new Uint8Array(9), { rows: 2 ** 25, width: 1, general_profile_idc: 1, codebook_size: 1 }).length, 2 ** 25);
  assert.equal(engine.exports, undefined);
  assert.deepEqual([...tensor(new Uint8Array(9), { rows: 3, general_profile_idc: 1, codebook_size: 1 })], [0, 0, 0]);
});
