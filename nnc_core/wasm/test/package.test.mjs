/** What the package weighs, and what it calls itself. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { PROJECT } from "./support/corpus.mjs";

const PACKAGE = join(PROJECT, "nnc_core", "wasm");
const DIST = join(PACKAGE, "dist");
const read = (...path) => readFileSync(join(...path), "utf8");

test("a decoder is at most 40 KB to download", () => {
  const files = readdirSync(DIST).filter((name) => /\.(js|wasm)$/.test(name));
  const sizes = files.map((name) => gzipSync(readFileSync(join(DIST, name)), { level: 9 }).length);
  assert.ok(sizes.length >= 4);
  assert.ok(sizes.reduce((all, size) => all + size, 0) <= 40 * 1024, `${files.join(", ")}: ${sizes.join(", ")}`);
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
