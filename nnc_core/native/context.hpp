// One adaptive probability model, and which models a tensor has (clause 10).
#pragma once

#include <cstdint>

#include "tables.hpp"

namespace nnc {

// The two estimators of a model. Whatever bins are coded, |s0| <= 123 and |s1| <= 1923 and |16 * s0 + s1| <= 3889, so
// that every table index is in range; here they carry the offsets of tables.hpp.
struct Estimators {
    std::uint16_t s1;
    std::uint8_t s0;

    static constexpr Estimators initial(int parameter_set) {
        const ParameterSet& p = kParameterSets[parameter_set];
        return {static_cast<std::uint16_t>(kOffset1 + p.s1()), static_cast<std::uint8_t>(kOffset0 + p.s0())};
    }

    // q + 4096 for the combined state q.
    unsigned combined() const { return 16u * s0 + s1; }

    void adapt(const Adaptation& adaptation, unsigned bin) {
        const unsigned scaled = (s1 + ((bin - 1) & 127)) >> 7;
        s1 = static_cast<std::uint16_t>(s1 + adaptation.step1[bin][scaled]);
        s0 = adaptation.next0[bin][s0];
    }
};

// What coding a bin needs (`widths`, `mps`) is worked out when the state changes: it is ready when the bin comes.
struct alignas(32) Context {
    std::uint64_t widths;
    const Transitions* next;
    Estimators estimators;
    std::uint8_t mps;
    std::uint8_t parameter_set;

    void reset(int set) {
        parameter_set = static_cast<std::uint8_t>(set);
        next = &transitions(set);
        estimators = Estimators::initial(set);
        refresh();
    }

    void update(unsigned bin) {
        estimators.s0 = next->next0[estimators.s0][bin];
        estimators.s1 = next->next1[estimators.s1][bin];
        refresh();
    }

    // Whether this is a model that a 0 leaves as it is: one that has seen nothing else for long.
    bool settled_on_zero() const {
        return mps == 0 && next->next0[estimators.s0][0] == estimators.s0 &&
               next->next1[estimators.s1][0] == estimators.s1;
    }

  private:
    void refresh() {
        const unsigned q = estimators.combined();
        widths = kWidths[q >> 7];
        mps = static_cast<std::uint8_t>(q >> 12);
    }
};

// A model as an encoder keeps it, which knows bins long before it codes them: small, and worked out when used.
struct alignas(16) LeanContext {
    const Transitions* next;
    std::uint16_t s1;
    std::uint8_t s0;
    std::uint8_t parameter_set;

    void reset(int set) {
        const Estimators initial = Estimators::initial(set);
        *this = {&transitions(set), initial.s1, initial.s0, static_cast<std::uint8_t>(set)};
    }

    unsigned combined() const { return 16u * s0 + s1; }
    std::uint64_t widths() const { return kWidths[combined() >> 7]; }
    bool expects_zero() const { return combined() >> 12 == 0; }
    bool settled_on_zero() const { return expects_zero() && next->next0[s0][0] == s0 && next->next1[s1][0] == s1; }
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
