// The numbers of the arithmetic coder and of dependent quantization, equal to nnc_core/tables/cabac.py (tested).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace nnc {

inline constexpr int kX2Contexts = 31;

// Width of the least probable symbol, kLps[(range >> 5) & 7][probability index].
inline constexpr std::uint8_t kLps[8][32] = {
    {
        128, 112, 97, 84, 74, 65, 57, 50, 45, 39, 34, 30, 27, 23, 20, 18,
        15,  14,  12, 11, 10, 9,  7,  7,  5,  5,  4,  4,  3,  3,  2,  2,
    },
    {
        142, 125, 108, 93, 82, 72, 63, 56, 50, 43, 38, 33, 30, 26, 22, 20,
        17,  16,  13,  12, 11, 10, 8,  8,  6,  6,  5,  5,  3,  3,  2,  2,
    },
    {
        156, 137, 119, 103, 90, 79, 70, 61, 55, 48, 42, 37, 33, 28, 24, 22,
        19,  17,  15,  13,  12, 11, 9,  9,  6,  6,  5,  5,  4,  4,  2,  2,
    },
    {
        171, 150, 130, 112, 99, 87, 76, 67, 60, 52, 46, 40, 36, 31, 27, 24,
        21,  19,  16,  15,  13, 12, 10, 10, 7,  7,  6,  6,  4,  4,  3,  3,
    },
    {
        185, 162, 141, 121, 107, 94, 82, 73, 65, 56, 50, 43, 39, 34, 29, 26,
        22,  21,  17,  16,  14,  13, 11, 11, 8,  8,  6,  6,  4,  4,  3,  3,
    },
    {
        199, 175, 152, 131, 115, 101, 89, 78, 70, 61, 54, 47, 42, 36, 31, 28,
        24,  22,  19,  17,  15,  14,  12, 12, 8,  8,  7,  7,  5,  5,  3,  3,
    },
    {
        213, 187, 163, 140, 123, 108, 95, 84, 75, 65, 58, 50, 45, 39, 33, 30,
        26,  24,  20,  18,  16,  15,  13, 13, 9,  9,  7,  7,  5,  5,  3,  3,
    },
    {
        228, 200, 174, 150, 132, 116, 102, 90, 80, 70, 62, 54, 48, 42, 36, 32,
        28,  26,  22,  20,  18,  16,  14,  14, 10, 10, 8,  8,  6,  6,  4,  4,
    },
};

// Adaptation of the estimators, indexed by 16 + the scaled state; shifted right by the context's rates.
inline constexpr int kStep[32] = {
    2512, 2288, 2064, 1840, 1616, 1392, 1168, 944, 720, 560, 464, 368, 272, 208, 144, 80,
    64,   64,   64,   64,   64,   64,   64,   64,  64,  64,  64,  64,  64,  64,  64,  0,
};

struct ParameterSet {
    int shift0, shift1, initial;
    constexpr int s0() const { return (initial + 16) >> 5; }
    constexpr int s1() const { return initial - 16 * s0(); }
};

// Meaning of a shift index: 0 is the default of every context, 1..8 are signalled.
inline constexpr ParameterSet kParameterSets[9] = {
    {5, 4, 0}, {5, 4, -1310}, {5, 4, 3039}, {4, 5, 0}, {6, 6, 962}, {6, 6, 3039}, {6, 6, -673}, {7, 5, 0}, {7, 5, 962},
};

// State machine of dependent quantization: kNextState[state][parity of the coded index].
inline constexpr std::uint8_t kNextState[8][2] = {
    {0, 2}, {7, 5}, {1, 3}, {6, 4}, {2, 0}, {5, 7}, {3, 1}, {4, 6},
};

// By parity, the next states as a row of bytes, each 8 times the state.
inline constexpr std::array<std::uint64_t, 2> kStatesAfter = [] {
    std::array<std::uint64_t, 2> rows{};
    for (int state = 0; state < 8; ++state)
        for (std::size_t odd = 0; odd < 2; ++odd) rows[odd] |= std::uint64_t{8} * kNextState[state][odd] << (8 * state);
    return rows;
}();

inline constexpr int kRateUnitBits = 15;
inline constexpr std::uint64_t kShiftIndexRate = 3u << kRateUnitBits;

// ---- derived tables ----
//
// The two estimators are kept with an offset that makes them unsigned, s0 + 128 and s1 + 2048. Then 16 * s0 + s1 is
// q + 4096, where q is the combined state; it lies in 207..7985, its bit 12 tells whether q >= 0.

inline constexpr int kOffset0 = 128, kOffset1 = 2048;

// All eight LPS widths of one probability index in one word, so that (range >> 5) & 7 selects by a shift; indexed by
// (q + 4096) >> 7.
inline constexpr std::array<std::uint64_t, 64> kWidths = [] {
    std::array<std::uint64_t, 64> words{};
    for (int i = 1; i < 64; ++i) {
        const int k = i < 32 ? 32 - i : i - 32;
        for (int row = 0; row < 8; ++row) words[i] |= std::uint64_t{kLps[row][k]} << (8 * row);
    }
    return words;
}();

// How a pair of estimators adapts, for one pair of shifts.
struct Adaptation {
    std::array<std::array<std::uint8_t, 256>, 2> next0{};  // [bin][s0]
    std::array<std::array<std::int16_t, 64>, 2> step1{};   // [bin][s1 / 128, rounded down for a 1 and up for a 0]

    constexpr Adaptation(int shift0, int shift1) {
        for (int bin = 0; bin < 2; ++bin) {
            const int d = bin ? 1 : -1;
            for (int s0 = -127; s0 < 128; ++s0) {
                const int next = s0 + d * (kStep[16 + ((d * s0) >> 3)] >> shift0);
                next0[bin][kOffset0 + s0] = static_cast<std::uint8_t>(kOffset0 + (next < -127  ? -127
                                                                                  : next > 127 ? 127
                                                                                               : next));
            }
            for (int i = 0; i <= 32; ++i) {
                const int scaled = d * (i - 16);  // s1 / 128 as seen in the direction of the bin
                step1[bin][i] = static_cast<std::int16_t>(d * (kStep[scaled < 16 ? 16 + scaled : 31] >> shift1));
            }
        }
    }
};

// One for each pair of shifts that occurs.
inline constexpr Adaptation kAdaptations[4] = {{5, 4}, {4, 5}, {6, 6}, {7, 5}};

inline constexpr const Adaptation& adaptation(int parameter_set) {
    const ParameterSet& p = kParameterSets[parameter_set];
    return kAdaptations[p.shift0 == 5 ? 0 : p.shift0 == 4 ? 1 : p.shift0 == 6 ? 2 : 3];
}

// Where a bin leads from a state of each estimator: [s0 or s1][bin].
struct Transitions {
    std::uint8_t next0[256][2];
    std::uint16_t next1[4096][2];

    explicit constexpr Transitions(const Adaptation& adaptation) : next0{}, next1{} {
        for (unsigned bin = 0; bin < 2; ++bin) {
            for (unsigned s0 = 0; s0 < 256; ++s0) next0[s0][bin] = adaptation.next0[bin][s0];
            for (unsigned s1 = 0; s1 < 4096; ++s1)
                next1[s1][bin] = static_cast<std::uint16_t>(static_cast<int>(s1) +
                                                            adaptation.step1[bin][(s1 + ((bin - 1) & 127)) >> 7]);
        }
    }
};

#ifdef __wasm__
// 67 KB that would be downloaded: made when the module starts, which no compiler may do before.
inline const std::array<Transitions, 4> kTransitions = [] {
    volatile std::size_t first = 0;
    const Adaptation* const each = kAdaptations + first;
    return std::array{Transitions(each[0]), Transitions(each[1]), Transitions(each[2]), Transitions(each[3])};
}();
#else
inline constexpr std::array kTransitions = {Transitions(kAdaptations[0]), Transitions(kAdaptations[1]),
                                            Transitions(kAdaptations[2]), Transitions(kAdaptations[3])};
#endif

inline const Transitions& transitions(int parameter_set) {
    return kTransitions[&adaptation(parameter_set) - kAdaptations];
}

}  // namespace nnc
