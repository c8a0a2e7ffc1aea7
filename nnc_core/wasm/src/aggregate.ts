/** `nnr_aggregate_unit_header()`: several units in one (clause 6.3.3.8). */
import type { SyntaxContext } from "./context.js";
import { within } from "./limits.js";
import type { Reader } from "./reader.js";

/** The bits of hints that each unit has, quant_bitdepth and ctu_scan_order, and a byte_alignment() behind them. */
interface Layout {
  quant_bitdepth: boolean;
  ctu_scan_order: boolean;
  aligned: boolean;
}

/** Nothing published settles which there are; the units themselves show which layout fits. */
const LAYOUTS: readonly Layout[] = [true, false].flatMap((aligned) => [
  { quant_bitdepth: true, ctu_scan_order: false, aligned },
  { quant_bitdepth: true, ctu_scan_order: true, aligned },
  { quant_bitdepth: false, ctu_scan_order: false, aligned },
]);

/** The types of the units inside, or undefined where the header does not tell. */
export function aggregateUnitHeader(r: Reader, ctx: SyntaxContext): { type: number; count: number; types: number[] | undefined } {
  const type = r.u(8, "nnr_aggregate_unit_type");
  const entryPoints = r.flag("entry_points_present_flag");
  r.u(7, "nnr_reserved_zero_7bits");
  const count = 2 + r.u(16, "num_of_nnr_units_minus2");
  r.expect(count, 24, "num_of_nnr_units_minus2");
  within(ctx.limits, "units", count, "num_of_nnr_units_minus2");
  const types = entryPoints ? Array.from({ length: count }, (_, i) => announced(r, i)) : undefined;
  const usual = (layout: Layout): boolean => layout.aligned && layout.quant_bitdepth && layout.ctu_scan_order === ctx.block_partitioning;
  const layouts = [...LAYOUTS.filter(usual), ...LAYOUTS.filter((layout) => !usual(layout))];
  r.firstFit(layouts, (layout) => hints(r, count, layout), "aggregate-units", count);
  return { type, count, types };
}

function announced(r: Reader, i: number): number {
  const type = r.u(6, `nnr_unit_type[${i}]`);
  r.u(34, `nnr_unit_entry_point[${i}]`);
  return type;
}

function hints(r: Reader, count: number, layout: Layout): void {
  for (let i = 0; i < count; i++) {
    if (layout.quant_bitdepth) r.u(5, `quant_bitdepth[${i}]`);
    if (layout.ctu_scan_order) r.u(1, `ctu_scan_order[${i}]`);
  }
  if (layout.aligned) r.byteAlignment();
}
