/** Builds dist/demo.html, which needs nothing else: the decoder, and the page of `nnc report` to be filled. */
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const HERE = new URL("./", import.meta.url);
const ASSETS = new URL("../../../adapters/nnc_adapters/report/assets/", import.meta.url);
const SCRIPTS = ["dom.js", "treemap.js", "charts.js", "table.js", "units.js", "main.js"]; // as in report/page.py

const read = (url) => readFileSync(url, "utf8");
const hash = (text) => `sha256-${createHash("sha256").update(text).digest("base64")}`;
const filled = (template, parts) => template.replace(/\{\{([\w-]+)\}\}/g, (place, name) => parts[name] ?? place);

const report = { style: read(new URL("page.css", ASSETS)), script: SCRIPTS.map((name) => read(new URL(name, ASSETS))).join("\n") };
const hashes = { "style-hash": hash(report.style), "script-hash": hash(report.script) };
const page = filled(read(new URL("page.html", ASSETS)), { ...report, ...hashes });

const bundle = await build({
  entryPoints: [fileURLToPath(new URL("demo.ts", HERE))],
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  write: false,
  loader: { ".wasm": "binary" },
  external: ["node:*"],
  define: { "import.meta.url": '"about:blank"' },
});
const script = bundle.outputFiles[0].text;
const style = read(new URL("demo.css", HERE));
const quoted = (...texts) => texts.map((text) => `'${hash(text)}'`).join(" ");
const demo = filled(read(new URL("demo.html", HERE)), {
  style,
  script,
  page: page.replaceAll("</script", "<\\/script"),
  styles: `${quoted(style)} '${hashes["style-hash"]}'`, // a frame has the policy of its page as well
  scripts: `${quoted(script)} '${hashes["script-hash"]}'`,
});
writeFileSync(new URL("../dist/demo.html", HERE), demo);
