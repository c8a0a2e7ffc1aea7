/** Start unit, model and layer parameter sets, and the performance maps in them (clauses 6.3.3.2, 6.3.4.3, 6.3.4.4). */
import type { SyntaxContext } from "./context.js";
import type { Reader } from "./reader.js";

const POSITIVE = 1;
/** NNR_QSU and NNR_QCB, which have a `qp_density`. */
const QUANTIZED = 3;
const SIZE_RULE = "performance-maps-size";

/** By how much the count elements exceed what follows them: entries, classes of an entry, dimensions. */
interface MapCounts {
  entries: number;
  classes: number;
  dimensions: number;
}

/** All readings; the one that the known decoders share comes first. */
const MAP_COUNTS: readonly MapCounts[] = [0, 1].flatMap((classes) =>
  [1, 0].flatMap((entries) => [1, 0].map((dimensions) => ({ entries, classes, dimensions }))),
);

/** An entry of a performance map: its elements by name. */
export type MapEntry = Record<string, number | number[]>;
export type PerformanceMaps = Partial<Record<"sparsification" | "pruning" | "unification" | "decomposition", MapEntry[]>>;

export interface ParameterSet {
  topology_carriage_flag: boolean;
  unification_flag: boolean;
  topology_indexed_reference_flag: boolean;
  parent_signalling_enabled_flag: boolean;
  nnr_pre_flag: boolean;
  qp_density: number | undefined;
  quantization_parameter: number | undefined;
  base_model_id: string | undefined;
  performance_metric_type: string | undefined;
  validation_set_performance: number | undefined;
  performance_maps: PerformanceMaps;
}

export const startUnit = (r: Reader): number => r.u(8, "general_profile_idc", 0, 1);

/** `nnr_model_parameter_set_payload()`. */
export function modelParameterSet(r: Reader, ctx: SyntaxContext): ParameterSet {
  const extended = ctx.general_profile_idc === 1;
  const longest = ctx.limits.nameLength;
  const topology_carriage_flag = r.flag("topology_carriage_flag");
  const flags = {
    sparsification: r.flag("mps_sparsification_flag"),
    pruning: r.flag("mps_pruning_flag"),
    unification: r.flag("mps_unification_flag"),
    decomposition: r.flag("mps_decomposition_performance_map_flag"),
  };
  const quantized = (r.u(3, "mps_quantization_method_flags") & QUANTIZED) > 0;
  const topology_indexed_reference_flag = r.flag("mps_topology_indexed_reference_flag");
  if (!extended) r.u(7, "nnr_reserved_zero_7bits");
  const hasBase = extended && r.flag("base_model_id_present_flag");
  const validated = extended && r.flag("validation_set_performance_present_flag");
  const hasMetric = extended && r.flag("metric_type_performance_map_valid_flag");
  const parent_signalling_enabled_flag = extended && r.flag("mps_parent_signalling_enabled_flag");
  const nnr_pre_flag = parent_signalling_enabled_flag && r.flag("nnr_pre_flag");
  if (extended && !parent_signalling_enabled_flag) r.u(1, "nnr_reserved_zero_1bit");
  if (extended) r.u(2, "nnr_reserved_zero_2bits");
  const base_model_id = hasBase ? r.st("base_model_id", longest) : undefined;
  const performance_metric_type = validated || hasMetric ? r.st("performance_metric_type", longest) : undefined;
  const qp_density = quantized ? r.u(3, "mps_qp_density") : undefined;
  const quantization_parameter = quantized ? r.i(13, "mps_quantization_parameter") : undefined;
  let validation_set_performance: number | undefined;
  const performance_maps = performanceMaps(r, flags, () => {
    validation_set_performance = validated ? r.flt("validation_set_performance") : undefined;
  });
  return {
    topology_carriage_flag,
    unification_flag: flags.unification,
    topology_indexed_reference_flag,
    parent_signalling_enabled_flag,
    nnr_pre_flag,
    qp_density,
    quantization_parameter,
    base_model_id,
    performance_metric_type,
    validation_set_performance,
    performance_maps,
  };
}

/** `nnr_layer_parameter_set_unit_header()` and its payload; what it does not say is that of the model, `mps`. */
export function layerParameterSet(r: Reader, mps: ParameterSet): ParameterSet {
  r.flag("lps_self_contained_flag");
  r.u(7, "nnr_reserved_zero_7bits");
  r.u(1, "nnr_reserved_zero_1_bit");
  const flags = {
    sparsification: r.flag("lps_sparsification_flag"),
    pruning: r.flag("lps_pruning_flag"),
    unification: r.flag("lps_unification_flag"),
    decomposition: false,
  };
  const quantized = (r.u(3, "lps_quantization_method_flags") & QUANTIZED) > 0;
  r.u(1, "nnr_reserved_zero_1bit");
  const own = quantized ? { qp_density: r.u(3, "lps_qp_density"), quantization_parameter: r.i(13, "lps_quantization_parameter") } : {};
  const performance_maps = performanceMaps(r, flags, () => {});
  return { ...mps, ...own, unification_flag: mps.unification_flag || flags.unification, performance_maps };
}

/** The maps that there are, and what ends the parameter set; which reading the counts have follows from its size. */
function performanceMaps(r: Reader, flags: Record<keyof PerformanceMaps, boolean>, end: () => void): PerformanceMaps {
  const present = (Object.keys(MAPS) as (keyof PerformanceMaps)[]).filter((map) => flags[map]);
  let maps: PerformanceMaps = {};
  const read = (counts: MapCounts): void => {
    maps = Object.fromEntries(present.map((map) => [map, MAPS[map](r, counts)]));
    end();
    r.byteAlignment();
  };
  if (present.length) r.firstFit(MAP_COUNTS, read, SIZE_RULE);
  else read(MAP_COUNTS[0]!);
  return maps;
}

type Entry = (flt: (name: string) => number, i: number) => MapEntry;

const MAPS: Record<keyof PerformanceMaps, (r: Reader, counts: MapCounts) => MapEntry[]> = {
  sparsification: (r, counts) =>
    entries(r, "spm_count_thresholds", counts, (flt, i) => ({
      sparsification_threshold: flt("sparsification_threshold"),
      non_zero_ratio: flt("non_zero_ratio"),
      ...accuracies(r, "spm", counts, i),
    })),
  pruning: (r, counts) =>
    entries(r, "ppm_count_pruning_ratios", counts, (flt, i) => ({
      pruning_ratio: flt("pruning_ratio"),
      ...accuracies(r, "ppm", counts, i),
    })),
  unification: (r, counts) =>
    entries(r, "upm_count_thresholds", counts, (flt, i) => ({
      ...dimensions(r, counts, i),
      unification_threshold: flt("unification_threshold"),
      ...accuracies(r, "upm", counts, i),
    })),
  decomposition: (r, counts) =>
    entries(r, "dpm_count_thresholds", counts, (flt, i) => ({
      mse_threshold: flt("mse_threshold"),
      nn_accuracy: flt("dpm_nn_accuracy"),
      nn_reduction_ratio: flt("nn_reduction_ratio"),
      nn_class_accuracy: list(r, i, "dpm_nn_class_accuracy", count(r, 16, `dpm_count_classes[${i}]`, counts.classes, 32)),
    })),
};

function entries(r: Reader, name: string, counts: MapCounts, entry: Entry): MapEntry[] {
  const length = count(r, 8, name, counts.entries, 64);
  return Array.from({ length }, (_, i) => entry((element) => r.flt(`${element}[${i}]`), i));
}

function accuracies(r: Reader, map: string, counts: MapCounts, i: number): MapEntry {
  const nn_accuracy = r.flt(`${map}_nn_accuracy[${i}]`);
  const classes = count(r, 8, `${map}_count_classes[${i}]`, counts.classes, 32);
  const class_bitmask = r.ue(7, `${map}_class_bitmask[${i}]`);
  return { nn_accuracy, class_bitmask, nn_class_accuracy: list(r, i, `${map}_nn_class_accuracy`, classes) };
}

function dimensions(r: Reader, { dimensions: extra }: MapCounts, i: number): MapEntry {
  const reshaped = Math.max(0, r.ue(1, `count_reshaped_tensor_dimension[${i}]`) - extra);
  r.expect(reshaped, 8, "count_reshaped_tensor_dimension");
  const reshaped_tensor_dimensions = Array.from({ length: reshaped }, (_, j) => r.ue(7, `reshaped_tensor_dimensions[${i}][${j}]`, POSITIVE));
  r.byteAlignment();
  const sizes = (kind: string): number[] => {
    const length = count(r, 8, `count_${kind}_dimension[${i}]`, extra, 8);
    return Array.from({ length }, (_, j) => r.u(8, `${kind}_dimensions[${i}][${j}]`));
  };
  return { reshaped_tensor_dimensions, super_block_dimensions: sizes("super_block"), block_dimensions: sizes("block") };
}

const list = (r: Reader, i: number, name: string, length: number): number[] =>
  Array.from({ length }, (_, j) => r.flt(`${name}[${i}][${j}]`));

/** The number of items that follow, of `least` bits each; the element may say `extra` more. */
function count(r: Reader, bits: number, name: string, extra: number, least: number): number {
  const found = Math.max(0, r.u(bits, name) - extra);
  r.expect(found, least, name);
  return found;
}
