// One adaptive probability model, and which models a tensor has (clause 10).
#pragma once

#include <cstdint>

#include "tables.hpp"

namespace nnc {

// The combined state q = 16 * s0 + s1 is positive where a 1 is likely. It never leaves -3889..3889, s0 never leaves
// -123..123 and s1 never -1923..1923, so that every table index below is in range whatever bins are coded.
// What coding a bin needs (`widths`, `mps`) is worked out when the state changes: it is ready when the bin comes.
struct Context {
    std::uint64_t widths;
    std::int16_t s0, s1;
    std::uint8_t rate0, rate1, mps, parameter_set;

    void reset(int set) {
        const ParameterSet& p = kParameterSets[set];
        parameter_set = static_cast<std::uint8_t>(set);
        rate0 = static_cast<std::uint8_t>(p.shift0 - 4);
        rate1 = static_cast<std::uint8_t>(p.shift1 - 4);
        s0 = static_cast<std::int16_t>(p.s0());
        s1 = static_cast<std::int16_t>(p.s1());
        refresh();
    }

    void update(unsigned bin) {
        const int mirror = static_cast<int>(bin) - 1;  // 0 for a 1, -1 for a 0
        const int mirrored = (s1 ^ mirror) - mirror;
        const int step = kStep1[rate1][16 + (mirrored >> 7)];
        s0 = kNextS0[rate0][bin][128 + s0];
        s1 = static_cast<std::int16_t>(s1 + ((step ^ mirror) - mirror));
        refresh();
    }

  private:
    void refresh() {
        const int q = 16 * s0 + s1;
        widths = kWidths[32 + (q >> 7)];
        mps = q >= 0;
    }
};

// The flat numbering of a tensor's contexts: groups one after the other. `n` is the number of greater-than flags.
struct ContextLayout {
    static constexpr int sig = 0, sig_tca = 24, sig_hist = 40, sign = 48, sign_tca = 51, gtx = 53;
    int n;
    int gtx_tca, x2, shift, row_skip, count;

    explicit ContextLayout(int greater_flags)
        : n(greater_flags),
          gtx_tca(gtx + 2 * n),
          x2(gtx + 4 * n),
          shift(x2 + kX2Contexts),
          row_skip(shift + 1),
          count(shift + 2) {}

    // Contexts that have a shift index; `shift` and `row_skip` themselves always use parameter set 0.
    int indexed() const { return shift; }
};

}  // namespace nnc
