// The search of dependent quantization, as kernels that work on a block of elements.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "tables.hpp"

namespace nnc {

// What the trellis remembers of one element. Bit t: target state t was reached by an odd index; bit 8 + t: if by an
// even one, that index is zero.
using Decision = std::uint16_t;

// The states in the order in which the kernels keep them. So the targets 0 1 2 3 are reached by even indices from the
// first four in place and by odd ones from the same four with halves exchanged, the targets 4 5 6 7 in the same way
// from the other four.
inline constexpr int kLanes[8] = {0, 2, 4, 6, 7, 5, 3, 1};
inline constexpr int kLaneOf[8] = {0, 7, 1, 6, 2, 5, 3, 4};

// The lane of the source of a target state, by the parity of the index that leads there.
constexpr int source_lane(int target, bool odd) { return target ^ 2 * odd; }

// Residue class modulo 4 of the multiples that a state reaches by an even and by an odd index: [state & 1][odd].
inline constexpr int kResidue[2][2] = {{0, 2}, {3, 1}};

// The index that means a multiple of the step in this state.
inline std::int32_t coded_index(std::int32_t level, int state) {
    const std::int32_t odd = state & 1;
    return level == 0 ? 0 : level < 0 ? (level - odd) / 2 : (level + odd) / 2;
}

inline constexpr int kMaxBlock = 512;

// Smallest of the four multiples that are considered for a magnitude.
inline std::int32_t lowest_multiple(double magnitude) {
    const std::int32_t below = static_cast<std::int32_t>(magnitude) - 1;
    return below < 1 ? 1 : below;
}

// What choosing a multiple, by its residue modulo 4, or zero costs for every element of a block. A value of exactly
// zero stays zero, which every state can code: multiples cost infinitely much.
struct Costs {
    double multiple[4][kMaxBlock];
    double zero[kMaxBlock];
};

inline constexpr double kOutOfReach = std::numeric_limits<double>::max() / 2;

// The costs of the best ways to all states, in the order of kLanes.
struct Survivors {
    double costs[8];

    Survivors() {
        for (double& cost : costs) cost = kOutOfReach;
        costs[0] = 0;
    }
    // The state with the lowest cost, of equals the first.
    int best() const;
};

// What the trellis remembers of one element in a rate-aware search. Bit t: the best way with another index than zero
// reaches target state t by an odd one. Bits 8 + t and 16 + t: the best way to go on from the state in lane t, with a
// zero and with another index, is one that came there with another index than zero.
using RatedDecision = std::uint32_t;

// The best ways when bits count: what an index costs depends on the one before, its neighbour.
struct RatedSurvivors {
    Survivors after_zero, after_other;
    int neighbour = 0;  // what the index before is if not zero: 1 negative, 2 positive; 0 where contexts start anew

    RatedSurvivors() { after_other.costs[0] = kOutOfReach; }
    // The state with the lowest cost, and whether it was reached by an index other than zero.
    struct Best {
        int state;
        bool other;
    };
    Best best() const;
};

// Costs of flags for every way to go on, in units of the squared step, by neighbour (0 is zero) and lane.
struct FlagCosts {
    double zero[3][8];
    double other[2][3][8];  // by sign: [negative]; its cost is included
};

struct Kernels {
    // Squared errors of `count` <= kMaxBlock values.
    void (*measure)(const float* values, int count, double inverse, Costs& costs);
    // Viterbi steps; of equal costs the source with the lower number wins, and a multiple wins over zero.
    void (*search)(Survivors& survivors, const Costs& costs, int count, Decision* decisions);
    // The same with rates, already added to the costs of multiples for what comes after the flags. Of equal costs ways
    // after a zero win.
    void (*search_with_rates)(RatedSurvivors& survivors, const Costs& costs, const FlagCosts& flags,
                              const std::uint8_t* negative, int count, RatedDecision* decisions);
    // corrected[i] = (..(values[i] - errors[0] * factors[i]) - ..) - errors[count - 1] * factors[(count - 1) * stride +
    // i]
    void (*correct)(const float* values, const float* factors, std::size_t stride, const float* errors, int count,
                    std::size_t length, float* corrected);
};

// The fastest that this machine can run; all give the same results.
const Kernels& kernels();
// From now on those that any machine can run; for tests.
void force_portable_kernels(bool force);

#if defined(__GNUC__) && defined(__x86_64__)
#define NNC_HAS_AVX2
extern const Kernels kAvx2Kernels;
#endif

}  // namespace nnc
