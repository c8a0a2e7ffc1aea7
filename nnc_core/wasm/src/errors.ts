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

/** The bitstream violates ISO/IEC 15938-17. */
export class BitstreamError extends NncError {
  override name = "BitstreamError";
  readonly what: string;
  readonly place: Place;

  constructor(what: string, place: Place = {}) {
    super(sentence(what, place));
    this.what = what;
    this.place = place;
  }

  /** The same error with more of its place; what is known already counts. */
  at(place: Place): this {
    const known = Object.fromEntries(Object.entries(this.place).filter(([, value]) => value !== undefined));
    const error = new (this.constructor as new (what: string, place: Place) => this)(this.what, { ...place, ...known });
    error.stack = this.stack ?? "";
    return error;
  }
}

/** The data end before the syntax does. */
export class TruncatedError extends BitstreamError {
  override name = "TruncatedError";
}

/** A size disagrees with what the unit holds. */
export class UnitSizeError extends BitstreamError {
  override name = "UnitSizeError";
}

/** Units are missing, repeated or in the wrong order. */
export class UnitOrderError extends BitstreamError {
  override name = "UnitOrderError";
}

/** A syntax element has a value that is reserved or out of range. */
export class ElementValueError extends BitstreamError {
  override name = "ElementValueError";
}

/** byte_alignment() is not a one followed by zeros. */
export class AlignmentError extends BitstreamError {
  override name = "AlignmentError";
}

/** The arithmetic-coded bytes are damaged, or do not end where they must. */
export class PayloadError extends BitstreamError {
  override name = "PayloadError";
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
