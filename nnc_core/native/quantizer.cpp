#include "quantizer.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "pair.hpp"
#include "scan.hpp"

namespace nnc {

namespace {

// Whether every multiple is a number below the limit, which is rounded as the inverse is.
template <class Number>
bool fits(const float* values, std::size_t count, Number inverse, Number limit) {
    bool all = true;
    for (std::size_t i = 0; i < count; ++i) all &= std::fabs(values[i] * inverse) < limit;
    return all;
}

// What the trellis remembers of one element: a bit for each target state.
struct Decision {
    std::uint8_t odd;   // the target was reached by an odd index
    std::uint8_t zero;  // if reached by an even one: that index is zero
};

// The sources of each target state, by the parity of the index that leads there.
constexpr std::uint8_t kSource[2][8] = {{0, 2, 4, 6, 7, 5, 3, 1}, {4, 6, 0, 2, 3, 1, 7, 5}};

// 8-state Viterbi search for the multiples with the least squared error, in coding order.
//
// Costs of the sources are kept in the order in which the targets need them: states 0 2 | 4 6 and 7 5 | 3 1. Then the
// targets 0 1 | 2 3 are reached by even indices from the first two pairs in place and by odd ones from the same pairs
// exchanged, the targets 4 5 | 6 7 in the same way from the other two. Of equal costs the source with the lower number
// wins, and a multiple wins over zero.
class Trellis {
  public:
    Trellis() {
        const double unreachable = std::numeric_limits<double>::max() / 2;
        q0_[0] = Pair(0, unreachable);
        q0_[1] = q1_[0] = q1_[1] = Pair(unreachable, unreachable);
    }

    // `x` is the magnitude in steps, `lowest` the smallest of the four multiples considered.
    Decision step(double x, std::int32_t lowest) {
        alignas(16) double distortion[4];  // by residue class modulo 4
        for (std::int32_t c = lowest; c < lowest + 4; ++c) distortion[c & 3] = (x - c) * (x - c);
        const Pair zero = Pair::both(x * x);
        unsigned odd = 0, zeros = 0;

        const Pair even0 = Pair::both(distortion[0]), odd0 = Pair::both(distortion[2]);
        const Pair target01 = compete<true, 0>(q0_[0], q0_[1], even0, zero, odd0, odd, zeros);
        const Pair target23 = compete<false, 2>(q0_[1], q0_[0], even0, zero, odd0, odd, zeros);
        const Pair even1 = Pair::both(distortion[3]), odd1 = Pair::both(distortion[1]);
        const Pair target45 = compete<false, 4>(q1_[0], q1_[1], even1, zero, odd1, odd, zeros);
        const Pair target67 = compete<true, 6>(q1_[1], q1_[0], even1, zero, odd1, odd, zeros);

        q0_[0] = Pair::low(target01, target23);
        q0_[1] = Pair::low(target45, target67);
        q1_[0] = Pair::high(target67, target45);
        q1_[1] = Pair::high(target23, target01);
        return {static_cast<std::uint8_t>(odd), static_cast<std::uint8_t>(zeros)};
    }

    int best() const {
        const std::array<double, 8> costs = {q0_[0][0], q1_[1][1], q0_[0][1], q1_[1][0],
                                             q0_[1][0], q1_[0][1], q0_[1][1], q1_[0][0]};
        return static_cast<int>(std::min_element(costs.begin(), costs.end()) - costs.begin());
    }

  private:
    // Two targets at once: the cheapest way to each, with one bit for each noted at `kTarget`.
    template <bool kEvenFirst, int kTarget>
    static Pair compete(Pair even_source, Pair odd_source, Pair even, Pair zero, Pair odd, unsigned& odd_bits,
                        unsigned& zero_bits) {
        const Pair by_even = even_source + even, by_zero = even_source + zero, by_odd = odd_source + odd;
        const Pair cheapest_even = by_zero.smaller_or(by_even);
        zero_bits |= by_zero.less(by_even) << kTarget;
        if constexpr (kEvenFirst) {
            odd_bits |= by_odd.less(cheapest_even) << kTarget;
        } else {
            odd_bits |= (cheapest_even.less(by_odd) ^ 3) << kTarget;
        }
        return by_odd.smaller_or(cheapest_even);
    }

    Pair q0_[2], q1_[2];
};

// `values` in coding order; `levels` as well.
void search(const float* values, std::size_t count, double inverse, std::int32_t* levels) {
    std::vector<Decision> decisions(count);
    Trellis trellis;
    for (std::size_t i = 0; i < count; ++i) {
        const double value = values[i];
        const double x = std::fabs(inverse * value);
        const std::int32_t lowest = std::max(1, static_cast<std::int32_t>(x) - 1);
        decisions[i] = trellis.step(x, lowest);
        levels[i] = value < 0 ? -lowest : lowest;  // all that the way back needs
    }
    // Residue class modulo 4 of the multiples that a state reaches by an even and by an odd index.
    constexpr int residue[2][2] = {{0, 2}, {3, 1}};
    int target = trellis.best();
    for (std::size_t i = count; i-- > 0;) {
        const int odd = (decisions[i].odd >> target) & 1;
        const bool zero = !odd && ((decisions[i].zero >> target) & 1);
        const int source = kSource[odd][target];
        const std::int32_t sign = levels[i] < 0 ? -1 : 1;
        const std::int32_t lowest = sign * levels[i];
        const std::int32_t multiple = lowest + ((residue[source & 1][odd] - lowest) & 3);
        levels[i] = zero ? 0 : sign * multiple;
        target = source;
    }
}

}  // namespace

bool quantize_uniform(const float* values, std::size_t count, float step, std::int32_t* levels) {
    const float inverse = 1.0f / step;
    if (!fits(values, count, inverse, 2147483648.0f)) return false;
    for (std::size_t i = 0; i < count; ++i) {
        const double multiple = values[i] * inverse;  // rounded to binary32 before it is rounded to an integer
        levels[i] = static_cast<std::int32_t>(multiple + std::copysign(0.5, multiple));
    }
    return true;
}

bool quantize_dependent(const float* values, const Parameters& p, float step, std::int32_t* levels) {
    const auto count = static_cast<std::size_t>(p.rows * p.width);
    const double inverse = 1.0 / static_cast<double>(step);
    // The search looks at multiples up to three above; all of them are to fit 32 bits.
    if (!fits(values, count, inverse, 2147483644.0)) return false;
    if (p.block_size() == 0) {
        search(values, count, inverse, levels);
        return true;
    }
    std::vector<float> ordered(count);
    std::vector<std::int32_t> found(count);
    std::size_t next = 0;
    const auto each_segment = [&](auto&& copy) {
        next = 0;
        traverse(
            p, [](std::int64_t) {},
            [&](const Segment& s) {
                copy(static_cast<std::size_t>(s.first), static_cast<std::size_t>(s.length));
                next += static_cast<std::size_t>(s.length);
            });
    };
    each_segment([&](std::size_t first, std::size_t length) { std::copy_n(values + first, length, &ordered[next]); });
    search(ordered.data(), count, inverse, found.data());
    each_segment([&](std::size_t first, std::size_t length) { std::copy_n(&found[next], length, levels + first); });
    return true;
}

void reconstruct(const std::int32_t* levels, std::size_t count, float step, float* values) {
    for (std::size_t i = 0; i < count; ++i) values[i] = step * static_cast<float>(levels[i]);
}

}  // namespace nnc
