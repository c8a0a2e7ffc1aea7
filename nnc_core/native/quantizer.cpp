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

// What the trellis remembers of one element. Bit t: target state t was reached by an odd index; bit 8 + t: if by an
// even one, that index is zero.
using Decision = std::uint16_t;

// The sources of each target state, by the parity of the index that leads there.
constexpr std::uint8_t kSource[2][8] = {{0, 2, 4, 6, 7, 5, 3, 1}, {4, 6, 0, 2, 3, 1, 7, 5}};

// 8-state Viterbi search for the multiples with the least squared error, in coding order.
//
// Costs of the sources are kept in the order in which the targets need them: states 0 2 | 4 6 and 7 5 | 3 1. Then the
// targets 0 1 | 2 3 are reached by even indices from the first two pairs in place and by odd ones from the same pairs
// exchanged, the targets 4 5 | 6 7 in the same way from the other two. Of equal costs the source with the lower number
// wins, and a multiple wins over zero. A value of exactly zero stays zero, which every state can code.
class Trellis {
  public:
    Trellis() {
        const double unreachable = std::numeric_limits<double>::max() / 2;
        q0_[0] = Pair(0, unreachable);
        q0_[1] = q1_[0] = q1_[1] = Pair(unreachable, unreachable);
    }

    // `x` is the magnitude in steps, `lowest` the smallest of the four multiples considered.
    Decision step(double x, std::int32_t lowest) {
        double distortion[4];  // of the multiples from `lowest` on
        const double first = x == 0 ? std::numeric_limits<double>::infinity() : lowest;  // no way but zero
        const Pair magnitude = Pair::both(x), multiple = Pair::both(first);
        squared(magnitude - (multiple + Pair(0, 1))).store(distortion);
        squared(magnitude - (multiple + Pair(2, 3))).store(distortion + 2);
        const auto residue = [&](int r) { return Pair::both(distortion[(r - lowest) & 3]); };
        const Pair zero = squared(magnitude);

        const Way way01(q0_[0], q0_[1], residue(0), zero, residue(2));
        const Way way23(q0_[1], q0_[0], residue(0), zero, residue(2));
        const Way way45(q1_[0], q1_[1], residue(3), zero, residue(1));
        const Way way67(q1_[1], q1_[0], residue(3), zero, residue(1));
        const Pair target01 = way01.cost(), target23 = way23.cost(), target45 = way45.cost(), target67 = way67.cost();

        q0_[0] = Pair::low(target01, target23);
        q0_[1] = Pair::low(target45, target67);
        q1_[0] = Pair::high(target67, target45);
        q1_[1] = Pair::high(target23, target01);
        // Where the odd index comes from the source with the lower number, it wins when costs are equal.
        const Truth odd[4] = {way01.by_odd < way01.by_even, way23.by_odd <= way23.by_even,
                              way45.by_odd <= way45.by_even, way67.by_odd < way67.by_even};
        const Truth zeros[4] = {way01.even_is_zero, way23.even_is_zero, way45.even_is_zero, way67.even_is_zero};
        return static_cast<Decision>(Truth::collect(odd, zeros));
    }

    int best() const {
        const std::array<double, 8> costs = {q0_[0][0], q1_[1][1], q0_[0][1], q1_[1][0],
                                             q0_[1][0], q1_[0][1], q0_[1][1], q1_[0][0]};
        return static_cast<int>(std::min_element(costs.begin(), costs.end()) - costs.begin());
    }

  private:
    static Pair squared(Pair a) { return a * a; }

    // The ways to two targets at once.
    struct Way {
        Pair by_odd, by_multiple, by_zero, by_even;
        Truth even_is_zero;

        Way(Pair even_source, Pair odd_source, Pair even, Pair zero, Pair odd)
            : by_odd(odd_source + odd),
              by_multiple(even_source + even),
              by_zero(even_source + zero),
              by_even(by_zero.smaller_or(by_multiple)),
              even_is_zero(by_zero < by_multiple) {}
        Pair cost() const { return by_odd.smaller_or(by_even); }
    };

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
        const std::int32_t negative = -static_cast<std::int32_t>(value < 0);  // not the sign bit: -0 is not negative
        levels[i] = (lowest ^ negative) - negative;                           // all that the way back needs
    }
    // Residue class modulo 4 of the multiples that a state reaches by an even and by an odd index.
    constexpr int residue[2][2] = {{0, 2}, {3, 1}};
    int target = trellis.best();
    for (std::size_t i = count; i-- > 0;) {
        // No branches: neither parities nor zeros can be predicted.
        const int ways = decisions[i] >> target;
        const int odd = ways & 1;
        const std::int32_t not_zero = (odd | ~(ways >> 8)) & 1;
        const int source = kSource[odd][target];
        const std::int32_t negative = levels[i] >> 31;
        const std::int32_t lowest = (levels[i] ^ negative) - negative;
        const std::int32_t multiple = lowest + ((residue[source & 1][odd] - lowest) & 3);
        levels[i] = ((multiple ^ negative) - negative) & -not_zero;
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
