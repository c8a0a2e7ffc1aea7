// The kernels of trellis.hpp for one type of vectors. To be included in a translation unit per instruction set.
#pragma once

#include "trellis.hpp"

namespace nnc {

template <class Quad>
struct TrellisKernels {
    static void measure(const float* values, int count, double inverse, Costs& costs) {
        for (int i = 0; i < count; ++i) {
            const double x = std::fabs(inverse * static_cast<double>(values[i]));
            const std::int32_t lowest = lowest_multiple(x);
            costs.zero[i] = x * x;
            const double blocked = x == 0 ? std::numeric_limits<double>::infinity() : 0;
            for (int residue = 0; residue < 4; ++residue) {
                const double error = x - static_cast<double>(lowest + ((residue - lowest) & 3));
                costs.multiple[residue][i] = error * error + blocked;
            }
        }
    }

    static void search(Survivors& survivors, const Costs& costs, int count, Decision* decisions) {
        Eight s = load(survivors);
        for (int i = 0; i < count; ++i) {
            const Quad zero = Quad::all(costs.zero[i]);
            const Eight by_zero = {s.a + zero, s.b + zero}, by_multiple = by_even_multiple(s, costs, i);
            const Eight by_even = {by_zero.a.smaller_or(by_multiple.a), by_zero.b.smaller_or(by_multiple.b)};
            const Eight by_odd = by_odd_multiple(s, costs, i);
            decisions[i] = static_cast<Decision>(odd_wins(by_odd, by_even) | (by_zero.a < by_multiple.a).bits() << 8 |
                                                 (by_zero.b < by_multiple.b).bits() << 12);
            s = sources({by_odd.a.smaller_or(by_even.a), by_odd.b.smaller_or(by_even.b)});
        }
        store(s, survivors);
    }

    static void search_with_rates(RatedSurvivors& survivors, const Costs& costs, const FlagCosts& flags,
                                  const std::uint8_t* negative, int count, RatedDecision* decisions) {
        Eight after_zero = load(survivors.after_zero), after_other = load(survivors.after_other);
        int neighbour = survivors.neighbour;
        for (int i = 0; i < count; ++i) {
            unsigned decision = 0;
            // The best ways to go on from each source, by what comes next.
            const auto best = [&](const double (&rates)[3][8], int shift) {
                const Eight zero = plus(after_zero, rates[0]), other = plus(after_other, rates[neighbour]);
                decision |= ((other.a < zero.a).bits() | (other.b < zero.b).bits() << 4) << shift;
                return Eight{other.a.smaller_or(zero.a), other.b.smaller_or(zero.b)};
            };
            const Eight to_zero = best(flags.zero, 8), to_other = best(flags.other[negative[i]], 16);
            const Quad zero = Quad::all(costs.zero[i]);
            const Eight by_even = by_even_multiple(to_other, costs, i), by_odd = by_odd_multiple(to_other, costs, i);
            decisions[i] = decision | odd_wins(by_odd, by_even);
            after_zero = sources({to_zero.a + zero, to_zero.b + zero});
            after_other = sources({by_odd.a.smaller_or(by_even.a), by_odd.b.smaller_or(by_even.b)});
            neighbour = 2 - negative[i];
        }
        survivors.neighbour = neighbour;
        store(after_zero, survivors.after_zero);
        store(after_other, survivors.after_other);
    }

    static void correct(const float* values, const float* factors, std::size_t stride, const float* errors, int count,
                        std::size_t length, float* corrected) {
        constexpr std::size_t kGroup = 64;  // what the registers hold
        std::size_t i = 0;
        for (; i + kGroup <= length; i += kGroup) {
            float group[kGroup];
            for (std::size_t j = 0; j < kGroup; ++j) group[j] = values[i + j];
            for (int row = 0; row < count; ++row) {
                const float* factor = factors + static_cast<std::size_t>(row) * stride + i;
                const float error = errors[row];
                for (std::size_t j = 0; j < kGroup; ++j) group[j] -= error * factor[j];
            }
            for (std::size_t j = 0; j < kGroup; ++j) corrected[i + j] = group[j];
        }
        for (; i < length; ++i) {
            float value = values[i];
            for (int row = 0; row < count; ++row)
                value -= errors[row] * factors[static_cast<std::size_t>(row) * stride + i];
            corrected[i] = value;
        }
    }

  private:
    // Costs of sources in the order of kLanes, or of the targets 0 to 7.
    struct Eight {
        Quad a, b;
    };

    static Eight load(const Survivors& s) { return {Quad::load(s.costs), Quad::load(s.costs + 4)}; }
    static void store(Eight costs, Survivors& s) {
        costs.a.store(s.costs);
        costs.b.store(s.costs + 4);
    }
    static Eight plus(Eight costs, const double* rates) {
        return {costs.a + Quad::load(rates), costs.b + Quad::load(rates + 4)};
    }
    static Quad multiple(const Costs& costs, int residue, int i) { return Quad::all(costs.multiple[residue][i]); }
    static Eight by_even_multiple(Eight s, const Costs& costs, int i) {
        return {s.a + multiple(costs, 0, i), s.b + multiple(costs, 3, i)};
    }
    static Eight by_odd_multiple(Eight s, const Costs& costs, int i) {
        return {s.a.halves_exchanged() + multiple(costs, 2, i), s.b.halves_exchanged() + multiple(costs, 1, i)};
    }
    // Where the odd index comes from the source with the lower number, it wins when costs are equal.
    static unsigned odd_wins(Eight odd, Eight even) {
        return Quad::less_late(odd.a, even.a).bits() | Quad::less_early(odd.b, even.b).bits() << 4;
    }
    static Eight sources(Eight targets) {
        return {even_ones(targets.a, targets.b), odd_ones_backwards(targets.a, targets.b)};
    }

  public:
    static constexpr Kernels table = {measure, search, search_with_rates, correct};
};

}  // namespace nnc
