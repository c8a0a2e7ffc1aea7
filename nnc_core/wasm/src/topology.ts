/** Topology units: lists of tensor names, and the pruning topology container (clause 6.3.4.5). */
import type { SyntaxContext } from "./context.js";
import { within } from "./limits.js";
import type { Reader } from "./reader.js";

/** `topology_elements_ids_list()`: at least two names. */
export function topologyElementsIdsList(r: Reader, ctx: SyntaxContext): string[] {
  const length = listLength(r, ctx);
  r.byteAlignment();
  return Array.from({ length }, (_, j) => r.st(`topology_elem_id_list[${j}]`, ctx.limits.nameLength));
}

/** `topology_elements_ids_list()` with indices in the place of names. */
export function topologyElementsIndexList(r: Reader, ctx: SyntaxContext): number[] {
  const length = listLength(r, ctx);
  const indices = Array.from({ length }, (_, j) => r.ue(7, `topology_elem_id_index_list[${j}]`));
  r.byteAlignment();
  return indices;
}

function listLength(r: Reader, ctx: SyntaxContext): number {
  const length = 2 + r.ue(7, "count_topology_elements_minus2");
  r.expect(length, 8, "count_topology_elements_minus2");
  return within(ctx.limits, "units", length, "count_topology_elements_minus2");
}

/** What was pruned, and what was set to zero: a mask has a bit for each element, or the dictionary says which is left. */
export interface Pruning {
  order_flag: boolean;
  prune_mask?: Mask;
  sparse_mask?: Mask;
  dictionary?: PrunedElement[];
}

/** `bit_mask()`: `count_bits` bits, the most significant of a byte first. */
export interface Mask {
  count_bits: number;
  bits: Uint8Array;
}

/** A tensor, by name or by its place in the reference list, and the dimensions that it has after pruning. */
export interface PrunedElement {
  element_id: string;
  dim: number[];
}

/** Where byte_alignment() stands in a dictionary is not certain: after each entry, or at the end, names first or not. */
const LAYOUTS = ["aligned entries", "aligned end", "identifiers first"] as const;

/** `nnr_pruning_topology_container()`. */
export function pruningTopologyContainer(r: Reader, ctx: SyntaxContext): Pruning {
  const dictionaries = r.u(2, "nnr_rep_type", 0, 1) === 1;
  const pruned = r.flag("prune_flag");
  const found: Pruning = { order_flag: r.flag("order_flag") };
  const sparse = r.flag("sparse_flag");
  r.u(3, "nnr_reserved_zero_3bits");
  const rest = (): void => {
    if (sparse) found.sparse_mask = mask(r, ctx, "sparse");
  };
  if (pruned && dictionaries) {
    r.firstFit(LAYOUTS, (layout) => {
      found.dictionary = dictionary(r, ctx, layout);
      rest();
    }, "pruning-size");
  } else {
    if (pruned) found.prune_mask = mask(r, ctx, "prune");
    rest();
  }
  return found;
}

function mask(r: Reader, ctx: SyntaxContext, kind: string): Mask {
  const count_bits = within(ctx.limits, "tensorElements", r.u(32, `count_bits[${kind}]`), "count_bits");
  const bits = r.mask(count_bits, `bit_mask_value[${kind}]`);
  r.byteAlignment();
  return { count_bits, bits };
}

function dictionary(r: Reader, ctx: SyntaxContext, layout: (typeof LAYOUTS)[number]): PrunedElement[] {
  const length = r.u(8, "count_ids");
  r.expect(length, 8, "count_ids");
  const found: PrunedElement[] = Array.from({ length }, () => ({ element_id: "", dim: [] }));
  const name = (entry: PrunedElement, j: number): void => void (entry.element_id = identifier(r, ctx, j));
  const size = (entry: PrunedElement, j: number): void => void (entry.dim = dims(r, ctx, j));
  if (layout === "identifiers first") {
    found.forEach(name);
    found.forEach(size);
  } else {
    found.forEach((entry, j) => {
      name(entry, j);
      size(entry, j);
      if (layout === "aligned entries") r.byteAlignment();
    });
  }
  if (layout !== "aligned entries") r.byteAlignment();
  return found;
}

function identifier(r: Reader, ctx: SyntaxContext, j: number): string {
  if (!ctx.mps_topology_indexed_reference_flag) return r.st(`element_id[${j}]`, ctx.limits.nameLength);
  const index = r.ue(7, `element_id_index[${j}]`);
  const name = ctx.topology_elements[index];
  if (name === undefined) {
    const what = `the reference list has ${ctx.topology_elements.length} names`;
    throw r.illegal(`element_id_index[${j}]`, what, { rule: "reference-index" });
  }
  return name;
}

function dims(r: Reader, ctx: SyntaxContext, j: number): number[] {
  const length = within(ctx.limits, "dimensions", r.ue(1, `count_dims[${j}]`), "count_dims");
  return Array.from({ length }, (_, k) => r.ue(7, `dim[${j}][${k}]`, 1));
}
