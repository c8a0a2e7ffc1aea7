/** What a syntax table is told beside its unit: parameter sets in force, references, parameters from outside. */
import type { Limits } from "./limits.js";

/** Parameters of a tensor that reach the decoder by other ways than the bitstream. */
export interface InputParameters {
  tensor_dimensions?: readonly number[] | undefined;
  cabac_unary_length_minus1?: number | undefined;
  compressed_parameter_types?: number | undefined;
  decomposition_rank?: number | undefined;
  g_number_of_rows?: number | undefined;
}

/** What a parameter set says for the data units after it. */
export interface Quantization {
  qp_density: number;
  quantization_parameter: number;
}

export interface SyntaxContext {
  general_profile_idc: number;
  mps_parent_signalling_enabled_flag: boolean;
  mps_topology_indexed_reference_flag: boolean;
  block_partitioning: boolean;
  topology_elements: readonly string[];
  /** The decomposition that the data unit just before began, if that one holds the factor G alone. */
  factor_g: string | undefined;
  quantization: Quantization | undefined;
  limits: Limits;
  inputParameters: (name: string) => InputParameters | undefined;
}

export const UnitType = { STR: 0, MPS: 1, LPS: 2, TPL: 3, QNT: 4, NDU: 5, AGG: 6 } as const;
export const UNIT_NAMES = ["NNR_STR", "NNR_MPS", "NNR_LPS", "NNR_TPL", "NNR_QNT", "NNR_NDU", "NNR_AGG"];
export const PayloadType = { INT: 0, FLOAT: 1, RAW_FLOAT: 2, BLOCK: 3 } as const;
export const StorageFormat = { UNREC: 0, NNEF: 1, ONNX: 2, PYT: 3, TEF: 4, PRUN: 5, REFLIST: 6, PRIVATE: 128 } as const;
/** `compressed_parameter_types`: decomposition, local scaling, batch-norm, bias. */
export const ParameterTypes = { DC: 1, LS: 2, BN: 4, BI: 8 } as const;

export const product = (shape: readonly number[]): number => shape.reduce((all, size) => all * size, 1);
