#include "calibrated.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "rate_model.hpp"
#include "trellis.hpp"

namespace nnc {

namespace {

// A block of columns is searched before what it leaves in error is carried to the columns right of it. The order of
// operations on each value is that of doing it at once.
constexpr int kColumns = kRateBlock;

struct Move {
    double cost;
    std::int32_t level;
};

// Both ways to go on from a source: by an even and an odd index, or by zero and another level.
using Moves = std::array<Move, 2>;

// One way through the row, as far as the block has come. Values of the block that are not quantized yet are corrected.
struct Survivor {
    double cost = kOutOfReach;
    int sign = 0;      // neighbour of the next index: 0 after a zero, 1 after a negative, 2 after a positive level
    int ancestor = 0;  // which survivor it was at the start of the block
    std::array<float, kColumns> values{}, errors{};
};

// The winner's last step, for the way back.
struct Trace {
    std::int32_t level;
    std::uint8_t source;
};

// With dependent quantization the survivors are the states; without, the best way to a zero and to another level.
class Search {
  public:
    Search(const Parameters& p, float step, const RateOptions& rates)
        : dependent_(p.dq_flag),
          count_(p.dq_flag ? 8 : 2),
          width_(static_cast<std::size_t>(p.width)),
          step_(step),
          inverse_(1.0 / step_),
          learns_(rates.lambda > 0),
          model_(p.greater_flags(), rates.lambda, rates.shift_indices),
          traces_(width_ * static_cast<std::size_t>(count_)),
          storage_(2 * width_ * static_cast<std::size_t>(count_)) {
        survivors_[0].cost = 0;
    }

    // `values` are those of `original` with corrections from elsewhere; without a `factor` the row makes none itself,
    // and `importance` is one for all columns.
    bool row(const float* values, const float* original, const float* factor, const double* importance,
             std::int32_t* levels) {
        factor_ = factor;
        importance_ = importance;
        rows_.fill(values);
        for (std::size_t first = 0; first < width_; first += kColumns) {
            const auto length = static_cast<int>(std::min<std::size_t>(kColumns, width_ - first));
            if (!block(original, first, length)) return false;
            if (factor_ != nullptr) correct(first + static_cast<std::size_t>(length), first, length);
        }
        go_back(0, width_, levels);
        const std::size_t best = static_cast<std::size_t>(this->best());
        Survivor winner = survivors_[best];
        survivors_.fill({});
        winner.cost = 0;
        survivors_[best] = winner;
        return true;
    }

  private:
    int state(int survivor) const { return dependent_ ? survivor : 0; }

    int best() const {
        int best = 0;
        for (int i = 1; i < count_; ++i)
            if (survivors_[at(i)].cost < survivors_[at(best)].cost) best = i;
        return best;
    }

    static std::size_t at(int i) { return static_cast<std::size_t>(i); }

    bool block(const float* original, std::size_t first, int length) {
        for (int i = 0; i < count_; ++i) {
            survivors_[at(i)].ancestor = i;
            std::copy_n(rows_[at(i)] + first, length, survivors_[at(i)].values.begin());
        }
        const std::array<Survivor, 8> before = survivors_;
        for (int column = 0; column < length; ++column)
            if (!advance(first, length, column, original[first + at(column)] == 0)) return false;
        if (learns_) learn(before, first, length);
        return true;
    }

    // One column: the moves of all sources, then the best for each target. A weight of exactly zero stays zero.
    bool advance(std::size_t first, int length, int column, bool is_zero) {
        const double importance = importance_[factor_ == nullptr ? 0 : first + at(column)];
        std::array<Moves, 8> moves;
        for (int source = 0; source < count_; ++source) {
            const Survivor& survivor = survivors_[at(source)];
            const double x = inverse_ * static_cast<double>(survivor.values[at(column)]);
            if (!(std::fabs(x) < kRoom)) return false;
            moves[at(source)] = moves_from(survivor, source, x, importance, is_zero);
        }
        Trace* trace = &traces_[(first + at(column)) * at(count_)];
        std::array<Survivor, 8> next;
        for (int target = 0; target < count_; ++target) {
            const auto [source, move] = winner(moves, target);
            trace[target] = {move.level, static_cast<std::uint8_t>(source)};
            step(survivors_[at(source)], move, first, length, column, next[at(target)]);
        }
        survivors_ = next;
        return true;
    }

    Moves moves_from(const Survivor& survivor, int source, double x, double importance, bool is_zero) const {
        const int negative = x < 0, lane = kLaneOf[state(source)];
        const double magnitude = std::fabs(x);
        const double before_zero = survivor.cost + model_.flags().zero[survivor.sign][lane];
        const Move zero = {before_zero + importance * (magnitude * magnitude), 0};
        const Move never = {std::numeric_limits<double>::infinity(), 0};
        if (is_zero) return {zero, never};
        const double before_other = survivor.cost + model_.flags().other[negative][survivor.sign][lane];
        const auto other = [&](std::int32_t multiple, std::int32_t index) {
            const double error = magnitude - multiple;
            const double cost = importance * (error * error) + model_.magnitude(negative, index);
            return Move{before_other + cost, negative ? -multiple : multiple};
        };
        if (dependent_) {
            const auto of_parity = [&](bool odd) {
                const std::int32_t lowest = lowest_multiple(magnitude);
                const std::int32_t multiple = lowest + ((kResidue[source & 1][odd] - lowest) & 3);
                return other(multiple, (multiple + 1) >> 1);
            };
            const Move even = of_parity(false);
            return {zero.cost < even.cost ? zero : even, of_parity(true)};
        }
        Move best = never;
        const auto nearest = static_cast<std::int32_t>(magnitude + 0.5);
        for (std::int32_t level = std::max(1, nearest - 2); level <= nearest; ++level) {
            const Move move = other(level, level);
            if (move.cost < best.cost) best = move;
        }
        return {zero, best};
    }

    // Of equal costs the source with the lower number wins.
    std::pair<int, Move> winner(const std::array<Moves, 8>& moves, int target) const {
        int sources[2] = {0, 1}, kinds[2] = {target, target};
        if (dependent_) {
            for (int odd = 0; odd < 2; ++odd) sources[odd] = kLanes[source_lane(target, odd)], kinds[odd] = odd;
            if (sources[1] < sources[0]) std::swap(sources[0], sources[1]), std::swap(kinds[0], kinds[1]);
        }
        const Move& a = moves[at(sources[0])][at(kinds[0])];
        const Move& b = moves[at(sources[1])][at(kinds[1])];
        return b.cost < a.cost ? std::pair{sources[1], b} : std::pair{sources[0], a};
    }

    void step(const Survivor& from, const Move& move, std::size_t first, int length, int column, Survivor& to) const {
        to = from;
        to.cost = move.cost;
        to.sign = move.level == 0 ? 0 : move.level < 0 ? 1 : 2;
        if (factor_ == nullptr) return;
        const float* factor = factor_ + (first + at(column)) * width_ + first;
        const double left = static_cast<double>(from.values[at(column)]) - move.level * step_;
        const auto error = static_cast<float>(left / static_cast<double>(factor[column]));
        to.errors[at(column)] = error;
        for (int i = column + 1; i < length; ++i) to.values[at(i)] = from.values[at(i)] - error * factor[i];
    }

    // Carry the errors of a block to the columns from `next` on.
    void correct(std::size_t next, std::size_t first, int length) {
        if (next == width_) return;
        flip_ = !flip_;
        std::array<const float*, 8> corrected;
        for (int i = 0; i < count_; ++i) {
            const Survivor& survivor = survivors_[at(i)];
            float* row = &storage_[(at(flip_) * at(count_) + at(i)) * width_];
            kernels().correct(rows_[at(survivor.ancestor)] + next, factor_ + first * width_ + next, width_,
                              survivor.errors.data(), length, width_ - next, row + next);
            corrected[at(i)] = row;
        }
        rows_ = corrected;
    }

    // The levels from the best survivor back to column `first`; which survivor it came from there.
    int go_back(std::size_t first, std::size_t end, std::int32_t* levels) const {
        int survivor = best();
        for (std::size_t column = end; column-- > first;) {
            const Trace& trace = traces_[column * at(count_) + at(survivor)];
            levels[column - first] = trace.level;
            survivor = trace.source;
        }
        return survivor;
    }

    void learn(const std::array<Survivor, 8>& before, std::size_t first, int length) {
        std::array<std::int32_t, kColumns> levels;
        const int ancestor = go_back(first, first + at(length), levels.data());
        int neighbour = before[at(ancestor)].sign, state = this->state(ancestor);
        for (int i = 0; i < length; ++i) {
            const std::int32_t level = levels[at(i)];
            const std::int32_t index = dependent_ ? coded_index(level, state) : level;
            model_.learn(index, neighbour, state);
            neighbour = index == 0 ? 0 : 2 - (index < 0);
            if (dependent_) state = kNextState[state][index & 1];
        }
        model_.refresh();
    }

    bool dependent_;
    int count_;
    std::size_t width_;
    double step_, inverse_;
    const float* factor_ = nullptr;
    const double* importance_ = nullptr;
    bool learns_;
    RateModel model_;
    std::array<Survivor, 8> survivors_;
    std::array<const float*, 8> rows_{};  // with corrections, from the current block on
    std::vector<Trace> traces_;
    std::vector<float> storage_;
    bool flip_ = false;
};

}  // namespace

bool quantize_calibrated(const float* values, const Parameters& p, float step, const Calibration& calibration,
                         const RateOptions& rates, std::int32_t* levels) {
    Search search(p, step, rates);
    const std::int64_t rows_of_group = p.rows / calibration.groups;
    for (std::int64_t row = 0; row < p.rows; ++row) {
        const std::int64_t group = row / rows_of_group, at = row * p.width;
        const float* factor = calibration.factor + group * p.width * p.width;
        const double* importance = calibration.importance + group * p.width;
        if (!search.row(values + at, values + at, factor, importance, levels + at)) return false;
    }
    return true;
}

bool quantize_calibrated_columns(const float* values, const Parameters& p, float step, const Calibration& calibration,
                                 const RateOptions& rates, std::int32_t* levels) {
    Search search(p, step, rates);
    const auto rows = static_cast<std::size_t>(p.rows), width = static_cast<std::size_t>(p.width);
    std::vector<float> errors(rows * width), corrected(width), factors(rows);
    for (std::size_t row = 0; row < rows; ++row) {
        for (std::size_t above = 0; above < row; ++above) factors[above] = calibration.factor[above * rows + row];
        const float* original = values + row * width;
        kernels().correct(original, errors.data(), width, factors.data(), static_cast<int>(row), width,
                          corrected.data());
        if (!search.row(corrected.data(), original, nullptr, calibration.importance + row, levels + row * width))
            return false;
        const auto own = static_cast<double>(calibration.factor[row * rows + row]);
        for (std::size_t i = 0; i < width; ++i) {
            const double left = static_cast<double>(corrected[i]) - levels[row * width + i] * static_cast<double>(step);
            errors[row * width + i] = static_cast<float>(left / own);
        }
    }
    return true;
}

}  // namespace nnc
