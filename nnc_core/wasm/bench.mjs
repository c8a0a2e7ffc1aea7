/** node bench.mjs FILE TIMES: the least CPU time, in seconds, of decoding a file from its bytes to arrays. */
import { readFileSync } from "node:fs";
import { decode } from "./dist/index.js";

const data = new Uint8Array(readFileSync(process.argv[2]));
let least = Infinity;
for (let times = Number(process.argv[3]); times > 0; times--) {
  const before = process.cpuUsage();
  await decode(data);
  const { user, system } = process.cpuUsage(before);
  least = Math.min(least, (user + system) / 1e6);
}
console.log(least);
