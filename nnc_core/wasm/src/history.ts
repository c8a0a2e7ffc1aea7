/** What the units before left for the next update of a tensor: nodes of the parameter update tree. */
import type { DataUnitHeader } from "./data_unit.js";
import { UpdateError } from "./errors.js";

/**
 * What the last unit of a tensor left: 0 is the `depth` of the base model, 1 that of the first update.
 *
 * `base` are its levels, and `marks` is 1 where any update so far had a level other than zero; neither is there after the
 * base model. The digests are those of its payload, in hexadecimal digits.
 */
export interface History {
  device_id?: number | undefined;
  parameter_id?: number | undefined;
  depth: number;
  base?: Int32Array | undefined;
  marks?: Uint8Array | undefined;
  sha256: string;
  sha512: string;
}

export type Histories = ReadonlyMap<string, History>;

export const NO_HISTORY: History = { depth: 0, sha256: "", sha512: "" };

/** The history after a unit with header `h`; `levels` are those of the tensor in it. */
export function historyAfter(before: History, h: DataUnitHeader, levels: Int32Array, digests: [sha256: string, sha512: string]): History {
  const parent = Number(h.parent_node_id_present_flag);
  const updates = parent > 0 || (h.put_node_depth ?? 0) > 0;
  const marks = new Uint8Array(levels.length);
  for (let i = 0; i < levels.length; i++) marks[i] = levels[i] !== 0 || before.marks?.[i] ? 1 : 0;
  return {
    device_id: h.device_id ?? before.device_id,
    parameter_id: h.parameter_id ?? before.parameter_id,
    depth: h.put_node_depth ?? before.depth + parent,
    base: updates ? levels : undefined,
    marks: updates ? marks : undefined,
    sha256: digests[0],
    sha512: digests[1],
  };
}

export async function digestsOf(payload: Uint8Array): Promise<[string, string]> {
  const digest = async (name: string): Promise<string> => {
    const bytes = new Uint8Array(await crypto.subtle.digest(name, payload as Uint8Array<ArrayBuffer>));
    return Array.from(bytes, (octet) => octet.toString(16).padStart(2, "0")).join("");
  };
  return [await digest("SHA-256"), await digest("SHA-512")];
}

/** Check that a unit with header `h` is the one that comes next after `history` of a tensor. */
export function checkParent(h: DataUnitHeader, name: string, history: History): void {
  if (!h.parent_node_id_present_flag) return;
  if (h.put_node_depth !== undefined) checkDepth(name, h.put_node_depth - 1, history.depth);
  if (h.parent_digest !== undefined) {
    const digest = h.parent_digest_bits === 256 ? history.sha256 : history.sha512;
    if (!digest) throw new UpdateError("missing", "the unit that the update builds on is missing", name);
    if (digest !== h.parent_digest) throw new UpdateError("base", "the update builds on a unit with another payload than the last one", name);
  }
  if (!history.depth) return;
  checkSame(name, "device_id", h.device_id, history.device_id);
  checkSame(name, "parameter_id", h.parameter_id, history.parameter_id);
}

function checkDepth(name: string, need: number, have: number): void {
  if (need > have) throw new UpdateError("missing", `the update builds on update ${need} of the tensor, at hand is update ${have}`, name);
  if (need < have) throw new UpdateError("replay", `update ${need + 1} of the tensor comes after update ${have}`, name);
}

function checkSame(name: string, element: string, found: number | undefined, known: number | undefined): void {
  if (found === undefined || known === undefined || found === known) return;
  throw new UpdateError("base", `${element} is ${found}, that of the update before is ${known}`, name);
}
