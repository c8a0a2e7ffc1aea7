/** The members of a block and their two orders (NNR_PT_BLOCK): names in the header, tensors in the payload. */
import { ParameterTypes } from "./context.js";

export type Member = "weight" | "G" | "H" | "scaling" | "beta" | "gamma" | "mean" | "var" | "bias";

export const PAYLOAD_ORDER: readonly Member[] = ["scaling", "bias", "beta", "gamma", "mean", "var", "weight", "G", "H"];

/** The members that are not vectors. */
export const isWeight = (member: Member): boolean => member === "weight" || member === "G" || member === "H";

/**
 * The members of a block with so many names, in header order; none if they do not fit.
 *
 * Two readings of the types are in use, which exchange the bits of batch-norm and bias; the number of names tells.
 */
export function namedMembers(types: number, names: number): Member[] {
  const { BN, BI } = ParameterTypes;
  const exchanged = (types & ~(BN | BI)) | (types & BN ? BI : 0) | (types & BI ? BN : 0);
  return [members(types), members(exchanged)].find((found) => found.length === names) ?? [];
}

function members(types: number): Member[] {
  const { DC, LS, BN, BI } = ParameterTypes;
  const found: Member[] = types & DC ? ["G", "H"] : ["weight"];
  if (types & LS) found.push("scaling");
  if (types & BN) found.push("beta", "gamma", "mean", "var");
  if (types & BI) found.push("bias");
  return found;
}
