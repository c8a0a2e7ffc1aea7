/** The one error family: what is wrong, where, and what was expected. */

/** Base of every error that the decoder raises on purpose. */
export class NncError extends Error {
  override name = "NncError";
}

/** Where in a bitstream: `bitOffset` counts from the start of the unit, `rule` names what is broken (docs/bitstream.md). */
export interface Place {
  unit?: number | undefined;
  bitOffset?: number | undefined;
  element?: string | undefined;
  tensor?: string | undefined;
  expected?: string | undefined;
  rule?: string | undefined;
}

/** The rules that values of elements break, where they have one of their own; see docs/bitstream.md. */
const RULES: Record<string, string> = {
  general_profile_idc: "profile",
  nnr_compressed_data_unit_payload_type: "payload-type",
  nnr_multiple_topology_elements_present_flag: "block-names",
  parent_node_id_type: "parent-type",
  codebook_size: "codebook-size",
  codebook_centre_offset: "codebook-zero",
  codebook_delta_left: "codebook-values",
  codebook_delta_right: "codebook-values",
  count_tensor_dimensions: "dimensions",
  tensor_dimensions: "dimensions",
  decomposition_rank: "decomposition",
  g_number_of_rows: "decomposition",
  concatenation_axis_index: "tensor-split",
  split_index: "tensor-split",
  shift_index: "axis-exchange",
  shift_value: "axis-exchange",
  first_tensor_dimension_shift: "dimension-shift",
  scan_order: "scan-order",
  bit_offset_delta2: "entry-points",
  nnr_rep_type: "pruning-type",
  dim: "pruning-dimensions",
};

/** The bitstream violates ISO/IEC 15938-17. */
export class BitstreamError extends NncError {
  override name = "BitstreamError";
  /** The rule that is broken if nothing else is said. */
  protected readonly usualRule: string = "element-range";
  readonly what: string;
  readonly place: Place;

  constructor(what: string, place: Place = {}) {
    super(sentence(what, place));
    this.what = what;
    this.place = place;
  }

  /** The name of the rule that is broken. */
  get rule(): string {
    return this.place.rule ?? this.usualRule;
  }

  /** The same error with more of its place; what is known already counts. */
  at(place: Place): this {
    const known = Object.fromEntries(Object.entries(this.place).filter(([, value]) => value !== undefined));
    return this.placed({ ...place, ...known });
  }

  /** The same error as the violation of another rule. */
  breaking(rule: string): this {
    return this.placed({ ...this.place, rule });
  }

  private placed(place: Place): this {
    const error = new (this.constructor as new (what: string, place: Place) => this)(this.what, place);
    error.stack = this.stack?.replace(this.message, () => error.message) ?? "";
    return error;
  }
}

/** The data end before the syntax does. */
export class TruncatedError extends BitstreamError {
  override name = "TruncatedError";
  protected override readonly usualRule = "truncated";
}

/** A size disagrees with what the unit holds. */
export class UnitSizeError extends BitstreamError {
  override name = "UnitSizeError";
  protected override readonly usualRule = "unit-size";
}

/** Units are missing, repeated or in the wrong order. */
export class UnitOrderError extends BitstreamError {
  override name = "UnitOrderError";
}

/** A syntax element has a value that is reserved or out of range. */
export class ElementValueError extends BitstreamError {
  override name = "ElementValueError";

  override get rule(): string {
    return this.place.rule ?? RULES[this.place.element?.split("[")[0] ?? ""] ?? this.usualRule;
  }
}

/** byte_alignment() is not a one followed by zeros. */
export class AlignmentError extends BitstreamError {
  override name = "AlignmentError";
  protected override readonly usualRule = "byte-alignment";
}

/** The arithmetic-coded bytes are damaged, or do not end where they must. */
export class PayloadError extends BitstreamError {
  override name = "PayloadError";
  protected override readonly usualRule = "codeword";
}

/** The input is valid, but uses a feature that is not supported. */
export class UnsupportedError extends NncError {
  override name = "UnsupportedError";

  constructor(readonly feature: string) {
    super(`${feature} is not supported`);
  }
}

/** The input exceeds one of the limits; `limit` names it. */
export class LimitError extends NncError {
  override name = "LimitError";

  constructor(readonly limit: string, readonly value: number, readonly maximum: number, readonly where = "") {
    super(`${value}${where && ` in ${where}`} exceeds the limit ${limit} = ${maximum}`);
  }
}

/** An update does not follow on what is at hand: one before it is missing, it came before, or it has another base. */
export class UpdateError extends NncError {
  override name = "UpdateError";

  constructor(readonly kind: "missing" | "replay" | "base", readonly what: string, readonly tensor?: string) {
    super(tensor === undefined ? what : `tensor ${JSON.stringify(tensor)}: ${what}`);
  }
}

function sentence(what: string, { unit, bitOffset, element, tensor, expected }: Place): string {
  const places = [
    unit === undefined ? "" : `unit ${unit}`,
    bitOffset === undefined ? "" : `bit ${bitOffset}`,
    element ?? "",
    tensor === undefined ? "" : `tensor ${JSON.stringify(tensor)}`,
  ].filter(Boolean);
  return `${places.length ? `${places.join(", ")}: ` : ""}${what}${expected === undefined ? "" : ` (expected ${expected})`}`;
}

/** What an error is made of, to send it from a worker. */
export type SentError = [name: string, ...made: unknown[]];

export function sentError(error: unknown): SentError {
  if (error instanceof BitstreamError) return [error.name, error.what, error.place];
  if (error instanceof UnsupportedError) return [error.name, error.feature];
  if (error instanceof LimitError) return [error.name, error.limit, error.value, error.maximum, error.where];
  if (error instanceof UpdateError) return [error.name, error.kind, error.what, error.tensor];
  return ["Error", error instanceof Error ? error.message : String(error)];
}

const KINDS: Record<string, new (...made: any[]) => Error> = {
  BitstreamError, TruncatedError, UnitSizeError, UnitOrderError, ElementValueError, AlignmentError, PayloadError,
  UnsupportedError, LimitError, UpdateError, Error,
};

export const receivedError = ([name, ...made]: SentError): Error => new KINDS[name]!(...made);
