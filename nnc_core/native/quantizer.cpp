#include "quantizer.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <vector>

#include "rate_model.hpp"
#include "scan.hpp"
#include "trellis.hpp"

namespace nnc {

namespace {

// Whether every multiple is a number below the limit, which is rounded as the inverse is.
template <class Number>
bool fits(const float* values, std::size_t count, Number inverse, Number limit) {
    bool all = true;
    for (std::size_t i = 0; i < count; ++i) all &= std::fabs(values[i] * inverse) < limit;
    return all;
}

// Calls `band()` where contexts start anew and `block(values, count)` for all elements in coding order, up to `size`
// at a time; no block reaches into another band.
template <class Band, class Block>
void for_each_block(const float* values, const Parameters& p, int size, Band&& band, Block&& block) {
    std::array<float, kMaxBlock> gathered;
    int count = 0;
    const auto flush = [&] {
        if (count) block(gathered.data(), count);
        count = 0;
    };
    traverse(
        p,
        [&](std::int64_t) {
            flush();
            band();
        },
        [&](const Segment& segment) {
            for (std::int64_t done = 0; done < segment.length;) {
                const auto part = static_cast<int>(std::min<std::int64_t>(size - count, segment.length - done));
                std::copy_n(values + segment.first + done, part, gathered.data() + count);
                done += part;
                count += part;
                if (count == size) flush();
            }
        });
    flush();
}

// The multiple that leads from a state by an index of that parity, one of the four from `lowest` on.
std::int32_t chosen_multiple(std::int32_t lowest, int state, bool odd) {
    return lowest + ((kResidue[state & 1][odd] - lowest) & 3);
}

// No branches here: neither parities nor signs can be predicted.
std::int32_t with_sign(std::int32_t magnitude, bool negative) {
    const std::int32_t mask = -static_cast<std::int32_t>(negative);
    return (magnitude ^ mask) - mask;
}

// Sets the levels to `back(value)`, from the last to the first in coding order.
template <class Back>
void trace_back(const float* values, const Parameters& p, std::int32_t* levels, Back&& back) {
    traverse_back(p, [&](const Segment& segment) {
        for (std::int64_t i = segment.first + segment.length; i-- > segment.first;) levels[i] = back(values[i]);
    });
}

// Zeros stay zeros, by even indices. Four of them lead from every state back to the same, at no cost.
constexpr int kZeroGroup = 16;
constexpr Decision kZeroDecision = 0xFF00;

bool is_group_of_zeros(const float* values, int at, int count) {
    if (at + kZeroGroup > count) return false;
    bool any = false;
    for (int i = at; i < at + kZeroGroup; ++i) any |= values[i] != 0;
    return !any;
}

void search(const float* values, const Parameters& p, double inverse, std::int32_t* levels) {
    std::vector<Decision> decisions(static_cast<std::size_t>(p.rows * p.width));
    Decision* next = decisions.data();
    Costs costs;
    Survivors survivors;
    const Kernels& kernel = kernels();
    for_each_block(
        values, p, kMaxBlock, [] {},
        [&](const float* block, int count) {
            for (int done = 0; done < count;) {
                int end = done;
                while (is_group_of_zeros(block, end, count)) end += kZeroGroup;
                next = std::fill_n(next, end - done, kZeroDecision);
                for (done = end; end < count && !is_group_of_zeros(block, end, count);)
                    end = std::min(end + kZeroGroup, count);
                kernel.measure(block + done, end - done, inverse, costs);
                kernel.search(survivors, costs, end - done, next);
                next += end - done;
                done = end;
            }
        });
    int state = survivors.best();
    trace_back(values, p, levels, [&](double value) {
        const unsigned ways = static_cast<unsigned>(*--next) >> state;
        const bool odd = ways & 1, zero = (~ways & (ways >> 8)) & 1;
        state = kLanes[source_lane(state, odd)];
        const std::int32_t lowest = lowest_multiple(std::fabs(inverse * value));
        return with_sign(chosen_multiple(lowest, state, odd), value < 0) & (static_cast<std::int32_t>(zero) - 1);
    });
}

class RateAwareSearch {
  public:
    using Decision = RatedDecision;

    RateAwareSearch(const Parameters& p, double inverse, const RateOptions& rates)
        : inverse_(inverse), model_(p.greater_flags(), rates.lambda, rates.shift_indices) {}

    void restart() {
        model_.restart();
        survivors_.neighbour = 0;
    }

    void block(const float* values, int count, Decision* decisions) {
        kernel_.measure(values, count, inverse_, costs_);
        for (int i = 0; i < count; ++i) {
            const double value = values[i];
            const std::int32_t lowest = lowest_multiple(std::fabs(inverse_ * value));
            negative_[i] = value < 0;  // not the sign bit: -0 is not negative
            for (int multiple = lowest; multiple < lowest + 4; ++multiple)
                costs_.multiple[multiple & 3][i] += model_.magnitude(negative_[i], (multiple + 1) >> 1);
        }
        const int neighbour = survivors_.neighbour;
        kernel_.search_with_rates(survivors_, costs_, model_.flags(), negative_.data(), count, decisions);
        learn(values, neighbour, count, decisions);
        model_.refresh();
    }

    // A way back begins at the best end.
    void start_back() { way_ = survivors_.best(); }
    // The level that the way had here.
    std::int32_t go_back(Decision decision, double value) {
        const bool other = way_.other, odd = (decision >> way_.state & 1) && other;
        const int lane = source_lane(way_.state, odd);
        way_ = {kLanes[lane], (decision >> (lane + (other ? 16 : 8)) & 1) != 0};
        const std::int32_t lowest = lowest_multiple(std::fabs(inverse_ * value));
        return with_sign(chosen_multiple(lowest, way_.state, odd), value < 0) & -static_cast<std::int32_t>(other);
    }

  private:
    // Teach the model the best way so far through this block.
    void learn(const float* values, int neighbour, int count, const Decision* decisions) {
        std::array<std::int32_t, kRateBlock> levels;
        start_back();
        for (int i = count; i-- > 0;) levels[i] = go_back(decisions[i], values[i]);
        int state = way_.state;
        if (!way_.other) neighbour = 0;
        for (int i = 0; i < count; ++i) {
            const std::int32_t index = coded_index(levels[i], state);
            model_.learn(index, neighbour, state);
            neighbour = index == 0 ? 0 : 2 - (index < 0);
            state = kNextState[state][index & 1];
        }
    }

    double inverse_;
    RateModel model_;
    const Kernels& kernel_ = kernels();
    RatedSurvivors survivors_;
    RatedSurvivors::Best way_{};
    Costs costs_;
    std::array<std::uint8_t, kRateBlock> negative_;
};

// Without dependent quantization there are two ways to go on from an element: zero, or the cheapest other level. So
// there are two survivors, by what the last level was.
class UniformSearch {
  public:
    // Bits 0 and 1: the best way to zero and to the other level comes from a level other than zero. Bits 2 and 3: how
    // far the other level lies below the nearest one.
    using Decision = std::uint8_t;

    UniformSearch(const Parameters& p, double inverse, const RateOptions& rates)
        : inverse_(inverse), model_(p.greater_flags(), rates.lambda, rates.shift_indices) {}

    void restart() {
        model_.restart();
        neighbour_ = 0;
    }

    void block(const float* values, int count, Decision* decisions) {
        const int before = neighbour_;
        for (int i = 0; i < count; ++i) decisions[i] = step(values[i]);
        std::array<std::int32_t, kRateBlock> levels;
        start_back();
        for (int i = count; i-- > 0;) levels[static_cast<std::size_t>(i)] = go_back(decisions[i], values[i]);
        int neighbour = other_ ? before : 0;
        for (int i = 0; i < count; ++i) {
            const std::int32_t level = levels[static_cast<std::size_t>(i)];
            model_.learn(level, neighbour, 0);
            neighbour = level == 0 ? 0 : 2 - (level < 0);
        }
        model_.refresh();
    }

    void start_back() { other_ = costs_[1] < costs_[0]; }
    std::int32_t go_back(Decision decision, double value) {
        const std::int32_t magnitude = nearest(std::fabs(inverse_ * value)) - (decision >> 2);
        const std::int32_t level = other_ ? with_sign(magnitude, value < 0) : 0;
        other_ = decision >> other_ & 1;
        return level;
    }

  private:
    static std::int32_t nearest(double x) { return static_cast<std::int32_t>(x + 0.5); }

    Decision step(double value) {
        const double x = std::fabs(inverse_ * value);
        const int negative = value < 0;
        const std::int32_t top = nearest(x);
        double least = std::numeric_limits<double>::infinity();
        int below = 0;
        for (std::int32_t level = std::max(1, top - 2); level <= top; ++level) {
            const double error = x - level;
            const double cost = error * error + model_.magnitude(negative, level);
            if (cost < least) least = cost, below = top - level;
        }
        const auto& zero = model_.flags().zero;
        const auto& other = model_.flags().other[negative];
        const double zero_after[2] = {costs_[0] + zero[0][0], costs_[1] + zero[neighbour_][0]};
        const double other_after[2] = {costs_[0] + other[0][0], costs_[1] + other[neighbour_][0]};
        const bool zero_source = zero_after[1] < zero_after[0], other_source = other_after[1] < other_after[0];
        costs_ = {zero_after[zero_source] + x * x, other_after[other_source] + least};
        neighbour_ = 2 - negative;
        return static_cast<Decision>(zero_source | other_source << 1 | below << 2);
    }

    double inverse_;
    RateModel model_;
    std::array<double, 2> costs_ = {0, kOutOfReach};
    int neighbour_ = 0;   // after a level other than zero
    bool other_ = false;  // on the way back: whether the level is not zero
};

template <class Search>
void search_with_rates(const float* values, const Parameters& p, double inverse, const RateOptions& rates,
                       std::int32_t* levels) {
    std::vector<typename Search::Decision> decisions(static_cast<std::size_t>(p.rows * p.width));
    auto* next = decisions.data();
    Search search(p, inverse, rates);
    for_each_block(
        values, p, kRateBlock, [&] { search.restart(); },
        [&](const float* block, int count) {
            search.block(block, count, next);
            next += count;
        });
    search.start_back();
    trace_back(values, p, levels, [&](double value) { return search.go_back(*--next, value); });
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

bool quantize_uniform(const float* values, const Parameters& p, float step, const RateOptions& rates,
                      std::int32_t* levels) {
    const auto count = static_cast<std::size_t>(p.rows * p.width);
    if (rates.lambda == 0) return quantize_uniform(values, count, step, levels);
    const double inverse = 1.0 / static_cast<double>(step);
    if (!fits(values, count, inverse, kRoom)) return false;
    search_with_rates<UniformSearch>(values, p, inverse, rates, levels);
    return true;
}

bool quantize_dependent(const float* values, const Parameters& p, float step, const RateOptions& rates,
                        std::int32_t* levels) {
    const double inverse = 1.0 / static_cast<double>(step);
    if (!fits(values, static_cast<std::size_t>(p.rows * p.width), inverse, kRoom)) return false;
    if (rates.lambda == 0)
        search(values, p, inverse, levels);
    else
        search_with_rates<RateAwareSearch>(values, p, inverse, rates, levels);
    return true;
}

void reconstruct(const std::int32_t* levels, std::size_t count, float step, float* values) {
    for (std::size_t i = 0; i < count; ++i) values[i] = step * static_cast<float>(levels[i]);
}

void reconstruct_in_place(std::int32_t* levels, std::size_t count, float step) {
    for (std::size_t i = 0; i < count; ++i)
        levels[i] = std::bit_cast<std::int32_t>(step * static_cast<float>(levels[i]));
}

}  // namespace nnc
