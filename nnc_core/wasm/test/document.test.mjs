/** The examples in docs/webassembly.md and the README run. */
import assert from "node:assert/strict";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { PROJECT, CORPUS, skip } from "./support/corpus.mjs";

const DOCUMENTS = ["docs/webassembly.md", "nnc_core/wasm/README.md"];
const FILES = {
  "model.nnr": join(PROJECT, "conformance", "fixtures", "types.nnr"),
  "base.nnr": join(CORPUS, "hdsp_dq1_s1", "bitstream_0.nnr"),
  "update1.nnr": join(CORPUS, "hdsp_dq1_s1", "bitstream_1.nnr"),
  "update2.nnr": join(CORPUS, "hdsp_dq1_s1", "bitstream_2.nnr"),
};

for (const document of DOCUMENTS) {
  const blocks = [...readFileSync(join(PROJECT, document), "utf8").matchAll(/^```js\n(.*?)^```$/gms)].map(([, text]) => text);
  for (const [number, text] of blocks.entries()) {
    const absent = text.includes("base.nnr") && skip;
    test(`example ${number + 1} of ${document}`, { skip: absent }, async (t) => {
      const said = [];
      t.mock.method(globalThis, "fetch", async (path) => new Response(readFileSync(FILES[path])));
      t.mock.method(console, "log", (...values) => void said.push(values.join(" ")));
      const module = join(PROJECT, "nnc_core", "wasm", "dist", `example-${document.length}-${number}.mjs`);
      writeFileSync(module, text.replaceAll("conv1.weight", "int8"));
      try {
        await import(module);
      } finally {
        rmSync(module);
      }
      for (const [, call, expected] of text.matchAll(/console\.log\((.*)\); \/\/ (.*)$/gm)) {
        if (call.includes("error")) assert.ok(said.includes(expected), said.join("\n"));
      }
    });
  }
  test(`${document} has examples`, () => assert.ok(blocks.length));
}
