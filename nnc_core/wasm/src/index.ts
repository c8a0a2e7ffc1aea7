/** Decoder for Neural Network Coding (ISO/IEC 15938-17) in browsers and Node. */
export type { DataUnit, Dtype, TensorData } from "./block.js";
export type { InputParameters } from "./context.js";
export { provideDecoder } from "./engine.js";
export {
  AlignmentError, BitstreamError, ElementValueError, LimitError, NncError, PayloadError, TruncatedError, UnitOrderError,
  UnitSizeError, UnsupportedError, UpdateError,
} from "./errors.js";
export type { Place } from "./errors.js";
export { decode, decodeStream, NnrFile, open } from "./file.js";
export type { ModelInfo, Options, TensorInfo, Topology } from "./file.js";
export type { Histories, History } from "./history.js";
export { DEFAULT_LIMITS } from "./limits.js";
export type { Limits } from "./limits.js";
export type { MapEntry, PerformanceMaps } from "./parameter_sets.js";
export { Workers } from "./pool.js";
export type { Source } from "./source.js";
export type { Mask, PrunedElement, Pruning } from "./topology.js";
export type { Tensor } from "./values.js";
