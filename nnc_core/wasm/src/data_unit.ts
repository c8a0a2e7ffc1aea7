/** `nnr_compressed_data_unit_header()` and the tables inside it (clause 6.3.3.7). */
import type { InputParameters, SyntaxContext } from "./context.js";
import { ParameterTypes, PayloadType, product } from "./context.js";
import { UnitOrderError } from "./errors.js";
import { within } from "./limits.js";
import { namedMembers } from "./members.js";
import type { Reader } from "./reader.js";
import { topologyElementsIdsList, topologyElementsIndexList } from "./topology.js";

const DIGESTS = [0, 256, 512];
const MOST_AXES = 64;

/** `integer_codebook()`: increasing integers; the coded integer 0 selects the one at `zero_offset`. */
export interface Codebook {
  values: Int32Array;
  zero_offset: number;
}

export interface EntryPoint {
  bit_offset: number;
  cabac_offset: number;
  dq_state: number;
}

/** How one coded tensor is cut into several: `shifts` are pairs of `shift_index` and `shift_value` for each. */
export interface DimensionMapping {
  concatenation_axis_index: number;
  split_index: number[];
  shifts: [index: number, value: number][][];
}

export interface DataUnitHeader {
  payload_type: number;
  names: readonly string[];
  several: boolean;
  device_id: number | undefined;
  parameter_id: number | undefined;
  put_node_depth: number | undefined;
  parent_node_id_present_flag: boolean;
  temporal_context_modeling_flag: boolean;
  /** The digest of the parent's payload in hexadecimal digits, and its number of bits. */
  parent_digest: string | undefined;
  parent_digest_bits: number;
  codebook: Codebook | undefined;
  codebook_h: Codebook | undefined;
  dq_flag: boolean;
  data_format: number | undefined;
  compressed_parameter_types: number;
  decomposition_rank: number;
  g_number_of_rows: number;
  tensor_dimensions: readonly number[];
  mapping: DimensionMapping | undefined;
  cabac_unary_length_minus1: number;
  first_tensor_dimension_shift: number;
  scan_order: number;
  entry_points: EntryPoint[];
}

export function dataUnitHeader(r: Reader, ctx: SyntaxContext): DataUnitHeader {
  const payload_type = r.u(5, "nnr_compressed_data_unit_payload_type", 0, 3);
  const block = payload_type === PayloadType.BLOCK;
  const several = r.u(1, "nnr_multiple_topology_elements_present_flag", block ? 1 : 0) === 1;
  const hasFormat = r.flag("nnr_decompressed_data_format_present_flag");
  const sent = r.flag("input_parameters_present_flag");
  const names = elementNames(r, ctx, several);
  const node = nodeOf(r, ctx);
  const hasCodebook = (payload_type === PayloadType.FLOAT || block) && r.flag("codebook_present_flag");
  const codebook = hasCodebook ? integerCodebook(r, ctx) : undefined;
  const dq_flag = payload_type !== PayloadType.RAW_FLOAT && r.flag("dq_flag");
  const data_format = hasFormat ? r.u(7, "nnr_decompressed_data_format") : undefined;
  const hasDimensions = sent && r.flag("tensor_dimensions_flag");
  const hasUnaryLength = sent && r.flag("cabac_unary_length_flag");
  const known = hasDimensions && hasUnaryLength ? {} : fromOutside(r, ctx, names);
  const types = parameterTypes(r, block, sent, names.length, known);
  const decomposed = (types & ParameterTypes.DC) > 0;
  const rank = decomposed && sent ? r.ue(3, "decomposition_rank", 1) : (known.decomposition_rank ?? 0);
  const rows = decomposed && sent ? r.ue(3, "g_number_of_rows", 1) : (known.g_number_of_rows ?? 0);
  const h: DataUnitHeader = {
    payload_type,
    names,
    several,
    ...node,
    codebook,
    codebook_h: undefined,
    dq_flag,
    data_format,
    compressed_parameter_types: types,
    decomposition_rank: rank,
    g_number_of_rows: rows,
    tensor_dimensions: hasDimensions ? dimensionsList(r, ctx) : (known.tensor_dimensions ?? []),
    mapping: undefined,
    cabac_unary_length_minus1: 9,
    first_tensor_dimension_shift: 0,
    scan_order: 0,
    entry_points: [],
  };
  checkDimensions(r, ctx, h);
  if (sent && !block && several) h.mapping = dimensionMapping(r, h);
  h.cabac_unary_length_minus1 = hasUnaryLength ? r.u(8, "cabac_unary_length_minus1") : (known.cabac_unary_length_minus1 ?? 9);
  if (block && hasCodebook && decomposed) h.codebook_h = integerCodebook(r, ctx);
  scan(r, ctx, h);
  r.byteAlignment();
  return h;
}

/** Whether the unit holds factors of a decomposed tensor; a vector in a unit of its own does not count. */
export const isDecomposed = (h: DataUnitHeader): boolean =>
  (h.compressed_parameter_types & ParameterTypes.DC) > 0 && (h.payload_type === PayloadType.BLOCK || h.tensor_dimensions.length > 1);

/** What the headers of two factors in units of their own have in common. */
export const decompositionOf = (h: DataUnitHeader): string => [h.tensor_dimensions, h.decomposition_rank, h.g_number_of_rows].join(" ");

/** The shapes, as coded, of what `tensor_dimensions` describes: of one tensor, or of the factors G and H. */
export function codedShapes(h: DataUnitHeader, ctx: SyntaxContext): number[][] {
  const shape = h.tensor_dimensions;
  if (isDecomposed(h)) {
    const [rows, rank] = [h.g_number_of_rows, h.decomposition_rank];
    const factors = [[rows, rank], [rank, product(shape) / rows]];
    if (h.payload_type === PayloadType.BLOCK) return factors;
    return ctx.factor_g === decompositionOf(h) ? factors.slice(1) : factors.slice(0, 1);
  }
  const first = h.first_tensor_dimension_shift;
  return [[shape[first]!, ...shape.slice(0, first), ...shape.slice(first + 1)]];
}

function elementNames(r: Reader, ctx: SyntaxContext, several: boolean): string[] {
  if (!ctx.mps_topology_indexed_reference_flag) {
    return several ? topologyElementsIdsList(r, ctx) : [r.st("topology_elem_id", ctx.limits.nameLength)];
  }
  const at = r.bitOffset;
  const indices = several ? topologyElementsIndexList(r, ctx) : [r.ue(7, "topology_elem_id_index")];
  return indices.map((index, j) => {
    const name = ctx.topology_elements[index];
    if (name !== undefined) return name;
    const element = several ? `topology_elem_id_index_list[${j}]` : "topology_elem_id_index";
    const count = ctx.topology_elements.length;
    if (count) throw r.illegal(element, `the reference list has ${count} names`, { bitOffset: at, rule: "reference-index" });
    const place = { bitOffset: at, rule: "reference-list-first" };
    throw r.error(UnitOrderError, "a reference by index before the reference list", element, place);
  });
}

type Node = Pick<
  DataUnitHeader,
  | "device_id" | "parameter_id" | "put_node_depth" | "parent_node_id_present_flag" | "temporal_context_modeling_flag"
  | "parent_digest" | "parent_digest_bits"
>;

function nodeOf(r: Reader, ctx: SyntaxContext): Node {
  const found: Node = {
    device_id: undefined,
    parameter_id: undefined,
    put_node_depth: undefined,
    parent_node_id_present_flag: false,
    temporal_context_modeling_flag: false,
    parent_digest: undefined,
    parent_digest_bits: 0,
  };
  const extended = ctx.general_profile_idc === 1;
  const node = extended && r.flag("node_id_present_flag");
  const place = (): void => {
    found.parameter_id = r.ue(5, "parameter_id");
    found.put_node_depth = r.ue(4, "put_node_depth");
  };
  if (node) {
    found.device_id = r.ue(1, "device_id");
    place();
  }
  found.parent_node_id_present_flag = extended && ctx.mps_parent_signalling_enabled_flag && r.flag("parent_node_id_present_flag");
  if (!found.parent_node_id_present_flag) return found;
  const type = r.u(2, "parent_node_id_type", 0, 2);
  found.temporal_context_modeling_flag = r.flag("temporal_context_modeling_flag");
  if (type === 0) {
    r.ue(1, "parent_device_id");
    if (!node) place();
  } else {
    found.parent_digest_bits = DIGESTS[type]!;
    found.parent_digest = r.digest(DIGESTS[type]!, `parent_node_payload_sha${DIGESTS[type]}`);
  }
  return found;
}

function integerCodebook(r: Reader, ctx: SyntaxContext): Codebook {
  const egk = r.u(4, "codebook_egk");
  const size = within(ctx.limits, "codebookSize", r.ue(2, "codebook_size", 1), "codebook_size");
  const half = size >> 1;
  const zero_offset = half + r.ie(2, "codebook_centre_offset", -half, size - half - 1);
  const zero = r.ie(7, "codebook_zero_value");
  r.expect(size - 1, egk + 1, "codebook_size");
  const values = new Int32Array(size);
  values[zero_offset] = zero;
  const side = (name: string, step: 1 | -1, room: number): void => {
    for (let j = zero_offset + step; j >= 0 && j < size; j += step) {
      const delta = 1 + r.ue(egk, `${name}[${j}]`, 0, room - 1);
      values[j] = values[j - step]! + step * delta;
      room -= delta;
    }
  };
  side("codebook_delta_left", -1, zero + 2 ** 31);
  side("codebook_delta_right", 1, 2 ** 31 - 1 - zero);
  return { values, zero_offset };
}

/** What is known from outside of the unit's tensors, each parameter under any of their names. */
function fromOutside(r: Reader, ctx: SyntaxContext, names: readonly string[]): InputParameters {
  const known: InputParameters = {};
  for (const name of [...names].reverse()) {
    const defined = Object.entries(ctx.inputParameters(name) ?? {}).filter(([, value]) => value !== undefined && value !== null);
    Object.assign(known, Object.fromEntries(defined));
  }
  const length = known.cabac_unary_length_minus1 ?? 0;
  if (!(length >= 0 && length <= 255)) {
    throw r.illegal("cabac_unary_length_minus1", `the value ${length} from outside is not allowed`, { expected: "0..255" });
  }
  return known;
}

function parameterTypes(r: Reader, block: boolean, sent: boolean, names: number, known: InputParameters): number {
  const start = r.bitOffset;
  const types = sent ? r.u(4, "compressed_parameter_types") : (known.compressed_parameter_types ?? 0);
  if (block && !namedMembers(types, names).length) {
    const what = `the value ${types} does not fit the number of names`;
    throw r.illegal("compressed_parameter_types", what, { bitOffset: start, rule: "parameter-types" });
  }
  return types;
}

function dimensionsList(r: Reader, ctx: SyntaxContext): number[] {
  const length = within(ctx.limits, "dimensions", r.ue(1, "count_tensor_dimensions", 1), "count_tensor_dimensions");
  return Array.from({ length }, (_, j) => r.ue(7, `tensor_dimensions[${j}]`, 1));
}

function checkDimensions(r: Reader, ctx: SyntaxContext, h: DataUnitHeader): void {
  const shape = h.tensor_dimensions;
  if (!shape.length || shape.length > MOST_AXES || !shape.every((size) => Number.isInteger(size) && size > 0)) {
    const place = { expected: "dimensions in the bitstream or from outside", rule: "dimensions-known" };
    throw r.illegal("tensor_dimensions", `no usable dimensions: ${shape.join(" x ") || "none"}`, place);
  }
  const elements = within(ctx.limits, "tensorElements", product(shape), "tensor_dimensions");
  if (!isDecomposed(h)) return;
  const { g_number_of_rows: rows, decomposition_rank: rank } = h;
  if (rows < 1 || elements % rows) throw r.illegal("g_number_of_rows", `${elements} elements are not ${rows} rows`);
  if (rank < 1) throw r.illegal("decomposition_rank", `the value ${rank} is not allowed`, { expected: "1 or more" });
  within(ctx.limits, "tensorElements", Math.max(rows, elements / rows) * rank, "decomposition_rank");
}

/** `topology_tensor_dimension_mapping()`. */
function dimensionMapping(r: Reader, h: DataUnitHeader): DimensionMapping {
  const shape = h.tensor_dimensions;
  const axis = r.u(8, "concatenation_axis_index", 0, shape.length - 1);
  const split_index: number[] = [];
  for (let i = 1; i < h.names.length; i++) {
    split_index.push(r.ue(7, `split_index[${i - 1}]`, (split_index.at(-1) ?? 0) + 1, shape[axis]! - 1));
  }
  const shifts = h.names.map((_, i) => {
    const length = r.ue(1, `number_of_shifts[${i}]`);
    r.expect(length, 10, `number_of_shifts[${i}]`);
    return Array.from({ length }, (_, k): [number, number] => {
      const index = r.ue(7, `shift_index[${i}][${k}]`, 0, shape.length - 1);
      return [index, r.ie(1, `shift_value[${i}][${k}]`, -index, shape.length - 1 - index)];
    });
  });
  return { concatenation_axis_index: axis, split_index, shifts };
}

function scan(r: Reader, ctx: SyntaxContext, h: DataUnitHeader): void {
  const axes = h.tensor_dimensions.length;
  if (axes < 2) return;
  if (ctx.general_profile_idc === 1) h.first_tensor_dimension_shift = r.ue(1, "first_tensor_dimension_shift", 0, axes - 1);
  h.scan_order = r.u(4, "scan_order", 0, 4);
  if (h.scan_order === 0) return;
  const rows = codedShapes(h, ctx).map(([first]) => Math.ceil(first! / (4 << h.scan_order)) - 1);
  const length = within(ctx.limits, "entryPoints", rows.reduce((all, count) => all + count, 0), "scan_order");
  r.expect(length, 16, "cabac_offset");
  let bit_offset = 0;
  h.entry_points = Array.from({ length }, (_, j) => {
    const cabac_offset = r.u(8, `cabac_offset[${j}]`);
    const dq_state = h.dq_flag ? r.u(3, `dq_state[${j}]`) : 0;
    if (j === 0) bit_offset = r.ue(11, "bit_offset_delta1");
    else bit_offset += r.ie(7, `bit_offset_delta2[${j}]`, -bit_offset, 2 ** 32 - 1 - bit_offset);
    return { bit_offset, cabac_offset, dq_state };
  });
}
