/** What the package weighs, and what it calls itself. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { PROJECT } from "./support/corpus.mjs";

const PACKAGE = join(PROJECT, "nnc_core", "wasm");
const DIST = join(PACKAGE, "dist");
const read = (...path) => readFileSync(join(...path), "utf8");

/** The files that a page loads which imports some of them. */
function loaded(...names) {
  const found = new Set(names);
  for (const name of found) {
    for (const [, other] of read(DIST, name).matchAll(/from"\.\/([\w.-]+)"/g)) found.add(other);
  }
  return [...found];
}

test("a decoder with its workers is at most 40 KB to download", () => {
  const files = [...loaded("index.js", "worker.js"), "nnr.wasm"];
  const sizes = files.map((name) => gzipSync(readFileSync(join(DIST, name)), { level: 9 }).length);
  assert.ok(files.some((name) => name.startsWith("chunk-")));
  const all = sizes.reduce((sum, size) => sum + size, 0);
  console.log(`${all} bytes: ${files.map((name, i) => `${name} ${sizes[i]}`).join(", ")}`);
  assert.ok(all <= 40_000);
});

test("the module needs nothing but two functions of its host", async () => {
  const module = await WebAssembly.compile(readFileSync(join(DIST, "nnr.wasm")));
  const imports = WebAssembly.Module.imports(module).map(({ name, kind }) => `${kind} ${name}`);
  assert.deepEqual(imports.sort(), ["function emscripten_notify_memory_growth", "function proc_exit"]);
});

test("the package has the version of the suite, and no dependencies", () => {
  const { version, dependencies, exports } = JSON.parse(read(PACKAGE, "package.json"));
  assert.equal(version, /__version__ = "(.*)"/.exec(read(PROJECT, "nnc_core", "__init__.py"))[1]);
  assert.equal(dependencies, undefined);
  const files = Object.values(exports).flatMap((entry) => (typeof entry === "string" ? [entry] : Object.values(entry)));
  for (const file of files) assert.ok(readFileSync(join(PACKAGE, file)).length, file);
});
