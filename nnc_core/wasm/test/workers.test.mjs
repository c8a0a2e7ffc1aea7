/** Workers: the largest unit first, and what becomes of units whose worker ends. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { decode, decodeStream, open, Workers } from "../dist/index.js";
import { PROJECT } from "./support/corpus.mjs";

const fixture = (name) => new Uint8Array(readFileSync(join(PROJECT, "conformance", "fixtures", name)));
const [SCANS, TYPES] = [fixture("scans.nnr"), fixture("types.nnr")];
const same = (a, b) => assert.deepEqual([...a.values()], [...b.values()]);

test("of the units that wait, the largest is decoded first", async () => {
  const workers = new Workers(1);
  const { dataUnits } = (await open(TYPES)).walk;
  const order = [];
  const decoded = async (unit) => {
    const { tensors } = await workers.decode(unit);
    order.push(tensors.reduce((all, { data }) => all + data.byteLength, 0));
  };
  await Promise.all(dataUnits.map(decoded));
  assert.ok(new Set(order).size > 1);
  assert.deepEqual(order, [...order].sort((a, b) => b - a));
  workers.close();
});

test("several files are decoded by the same workers at once", async () => {
  const workers = new Workers(2);
  const alone = await decode(SCANS);
  for (const each of await Promise.all(Array.from({ length: 6 }, () => decode(SCANS, { workers })))) same(each, alone);
  workers.close();
  same(await decode(SCANS, { workers: 3 }), alone);
});

test("a worker that ends fails its unit, and another takes its place", async () => {
  const workers = new Workers(1);
  const before = await decode(SCANS, { workers });
  const [unit] = (await open(SCANS)).walk.dataUnits;
  const assign = workers.assign.bind(workers);
  workers.assign = (thread, module) => {
    workers.assign = assign;
    assign(thread, module);
    thread.end(); // before it can have answered
  };
  await assert.rejects(workers.decode(unit), /a worker has ended/);
  same(await decode(SCANS, { workers }), before);
  workers.close();
});

test("closed workers decode no more, and say so", async () => {
  const workers = new Workers(2);
  const decoding = decode(SCANS, { workers });
  workers.close();
  await assert.rejects(decoding, /the workers are closed/);
  await assert.rejects(decode(SCANS, { workers }), /the workers are closed/);
});

test("a stream that nobody reads on is let go", async () => {
  let cancelled = false;
  const source = new ReadableStream({
    pull: (controller) => controller.enqueue(SCANS.slice()),
    cancel: () => void (cancelled = true),
  });
  for await (const tensor of decodeStream(source)) {
    assert.ok(tensor.name);
    break;
  }
  assert.ok(cancelled);
});

test("a download that fails is an error", async () => {
  await assert.rejects(decode(new Response("gone", { status: 404 })), /status 404/);
  const source = new ReadableStream({ pull: (controller) => controller.error(new Error("the line is dead")) });
  await assert.rejects(decode(source), /the line is dead/);
});
