/** Arrays of numpy: .npy files and the zip archives of them. */
import { readFileSync } from "node:fs";
import { inflateRawSync } from "node:zlib";

const ARRAYS = {
  "<f4": Float32Array, "<f8": Float64Array, "<f2": Uint16Array, "<i4": Int32Array, "<i8": BigInt64Array, "<i2": Int16Array, "|i1": Int8Array,
  "|u1": Uint8Array, "<u2": Uint16Array, "<u4": Uint32Array, "<u8": BigUint64Array,
};

export function npy(bytes) {
  const length = bytes[6] === 1 ? bytes.readUInt16LE(8) : bytes.readUInt32LE(8);
  const start = bytes[6] === 1 ? 10 : 12;
  const header = bytes.subarray(start, start + length).toString("latin1");
  const descr = /'descr': '([^']+)'/.exec(header)[1];
  const shape = /'shape': \(([^)]*)\)/.exec(header)[1].split(",").map((size) => size.trim()).filter(Boolean).map(Number);
  if (!ARRAYS[descr]) throw new Error(`an array of ${descr}`);
  if (header.includes("'fortran_order': True")) throw new Error("column by column");
  return { shape, descr, data: new ARRAYS[descr](Uint8Array.from(bytes.subarray(start + length)).buffer) };
}

export const readNpy = (path) => npy(readFileSync(path));

/** The arrays of an archive by name, each read when it is asked for. */
export function readNpz(path) {
  const zip = readFileSync(path);
  const found = new Map();
  let end = zip.length - 22;
  while (zip.readUInt32LE(end) !== 0x06054b50) end--;
  let at = zip.readUInt32LE(end + 16);
  for (let count = zip.readUInt16LE(end + 10); count > 0; count--) {
    const [method, size] = [zip.readUInt16LE(at + 10), zip.readUInt32LE(at + 20)];
    const [name, extra, comment] = [28, 30, 32].map((place) => zip.readUInt16LE(at + place));
    const local = zip.readUInt32LE(at + 42);
    const start = local + 30 + zip.readUInt16LE(local + 26) + zip.readUInt16LE(local + 28);
    const packed = zip.subarray(start, start + size);
    const file = zip.subarray(at + 46, at + 46 + name).toString();
    found.set(file.replace(/\.npy$/, ""), () => npy(method === 8 ? inflateRawSync(packed) : packed));
    at += 46 + name + extra + comment;
  }
  return found;
}
