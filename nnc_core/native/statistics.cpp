// Choosing the parameter set of every context: what its bins would cost under each of the nine.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "encoder.hpp"
#include "threads.hpp"

namespace nnc {

namespace {

constexpr int kSets = 9;
constexpr std::size_t kBufferedBins = 256;
constexpr std::size_t kUntilMet = 512;
constexpr std::uint64_t kDoubt = 64;
constexpr std::int64_t kFew = 1024;
// Of the rows of blocks of a large tensor, one in so many is followed, which then counts for all: at least kFollowed.
constexpr std::int64_t kLarge = 1 << 17, kFollowed = 64, kBandEvery = 8;
// In a row of blocks, or a tensor that has none, a context that has met so many bins is followed in one run of so many
// elements only, in the same way; in a large tensor it has met enough sooner.
constexpr std::int64_t kUntilSampled = 24576, kUntilSampledInLarge = 2048;
constexpr std::int64_t kSampledRun = 256, kSampledEvery = 8;

Rates make_rates() {
    Rates table{};
    const double unit = 1 << kRateUnitBits;
    for (std::size_t t = 0; t < 512; ++t) {
        const double unlikely = unit + 400.79895 * (static_cast<double>(t) + 0.5);
        const double likely = -unit * std::log2(1 - std::exp2(-unlikely / unit));
        table[0][512 + t] = static_cast<std::uint32_t>(std::floor(unlikely + 0.5));
        table[1][512 + t] = static_cast<std::uint32_t>(std::floor(likely + 0.5));
    }
    for (std::size_t t = 1; t < 512; ++t) {
        table[0][512 - t] = table[1][512 + t];
        table[1][512 - t] = table[0][512 + t];
    }
    table[0][0] = table[0][1];
    table[1][0] = table[1][1];
    return table;
}

// One context under all nine sets, fed with buffers of bins.
//
// The states of sets with equal shifts approach each other, whatever the bins are. After kUntilMet bins they are taken
// to have met: sets 0 to 2 are followed as one, so are 4 to 6, and the long windows of 3, 7 and 8; set 7 never leaves
// s0 = 0. Five costs are left of nine, from four short and three long windows.
class Candidates {
  public:
    Candidates() { restart(); }

    void add(const Candidates& other) {
        for (std::size_t set = 0; set < kSets; ++set) costs_[set] += other.costs_[set];
    }

    void restart() {
        seen_ = 0;
        for (int set = 0; set < kSets; ++set) states_[static_cast<std::size_t>(set)] = Estimators::initial(set);
    }

    void feed(const std::uint8_t* bins, std::size_t count, std::uint64_t weight) {
        const std::size_t apart = std::min(count, kUntilMet - std::min(seen_, kUntilMet));
        seen_ += count;
        if (apart) {
            follow<0, 1, 2>(bins, apart, weight);
            follow<3, 7, 8>(bins, apart, weight);
            follow<4, 5, 6>(bins, apart, weight);
        }
        if (count > apart) follow_met(bins + apart, count - apart, weight);
    }

    static std::uint32_t rate_of(unsigned bin, const Estimators& state) { return kRates[bin][state.combined() >> 3]; }

    std::uint64_t cost(std::size_t set) const { return costs_[set]; }

    std::uint8_t best() const {
        std::uint8_t chosen = 0;
        std::uint64_t lowest = costs_[0];
        for (std::uint8_t set = 1; set < kSets; ++set) {
            if (costs_[set] + kShiftIndexRate >= lowest) continue;
            lowest = costs_[set] + kShiftIndexRate;
            chosen = set;
        }
        return chosen;
    }

  private:
    // By the larger tables of a coder: one access for each estimator.
    static void adapt(Estimators& state, int set, unsigned bin) {
        const Transitions& next = transitions(set);
        state.s0 = next.next0[state.s0][bin];
        state.s1 = next.next1[state.s1][bin];
    }

    // Three sets at a time: their states fit the registers, and none waits for the others.
    template <int kA, int kB, int kC>
    void follow(const std::uint8_t* bins, std::size_t count, std::uint64_t weight) {
        Estimators a = states_[kA], b = states_[kB], c = states_[kC];
        std::uint64_t cost_a = 0, cost_b = 0, cost_c = 0;
        for (std::size_t i = 0; i < count; ++i) {
            const unsigned bin = bins[i];
            cost_a += rate_of(bin, a);
            cost_b += rate_of(bin, b);
            cost_c += rate_of(bin, c);
            adapt(a, kA, bin);
            adapt(b, kB, bin);
            adapt(c, kC, bin);
        }
        states_[kA] = a;
        states_[kB] = b;
        states_[kC] = c;
        costs_[kA] += weight * cost_a;
        costs_[kB] += weight * cost_b;
        costs_[kC] += weight * cost_c;
    }

    void follow_met(const std::uint8_t* bins, std::size_t count, std::uint64_t weight) {
        Estimators a = states_[0], b = states_[3], c = states_[4], e = states_[8];
        std::uint64_t cost_a = 0, cost_b = 0, cost_c = 0, cost_d = 0, cost_e = 0;
        for (std::size_t i = 0; i < count; ++i) {
            const unsigned bin = bins[i];
            cost_a += rate_of(bin, a);
            cost_b += rate_of(bin, b);
            cost_c += rate_of(bin, c);
            cost_d += rate_of(bin, {b.s1, kOffset0});
            cost_e += rate_of(bin, {b.s1, e.s0});
            adapt(a, 0, bin);
            adapt(b, 3, bin);
            adapt(c, 4, bin);
            adapt(e, 8, bin);
        }
        states_[0] = a;
        states_[3] = b;
        states_[4] = c;
        states_[8] = {b.s1, e.s0};
        for (const std::size_t set : {0, 1, 2}) costs_[set] += weight * cost_a;
        for (const std::size_t set : {4, 5, 6}) costs_[set] += weight * cost_c;
        costs_[3] += weight * cost_b;
        costs_[7] += weight * cost_d;
        costs_[8] += weight * cost_e;
    }

    std::array<Estimators, kSets> states_;
    std::array<std::uint64_t, kSets> costs_{};
    std::size_t seen_ = 0;
};

// A context's bins, gathered until there are enough for one pass.
struct Gathered {
    Gathered() {}  // which leaves the room for bins as it is

    Candidates candidates;
    std::int64_t met = 0;      // of the bins of this row of blocks those that were followed
    std::uint64_t weight = 1;  // for how many bins one counts in this run; 0: none is followed
    std::size_t count = 0;
    std::array<std::uint8_t, kBufferedBins> bins;

    void start_band() {
        flush();
        candidates.restart();
        met = 0;
    }
    void start_run(std::int64_t run, std::int64_t enough, std::uint64_t one) {
        flush();
        weight = met < enough ? one : run % kSampledEvery == 0 ? one * kSampledEvery : 0;
    }
    void add(unsigned bin) {
        bins[count] = static_cast<std::uint8_t>(bin);
        if (++count == kBufferedBins) flush();
    }
    void flush() {
        if (count) candidates.feed(bins.data(), count, weight);
        met += static_cast<std::int64_t>(count);
        count = 0;
    }
};

// One in so many rows of blocks is followed.
std::int64_t band_stride(const Parameters& p, bool sampled) {
    if (!sampled || p.rows * p.width < kLarge) return 1;
    return std::clamp<std::int64_t>(count_bands(p) / kFollowed, 1, kBandEvery);
}

// All contexts of a tensor, and in which of its runs they are followed.
class Statistics {
  public:
    Statistics(const Parameters& p, const ContextLayout& layout, bool history, bool sampled)
        : p_(p),
          layout_(layout),
          enough_(!sampled                    ? std::numeric_limits<std::int64_t>::max()
                  : p.rows * p.width < kLarge ? kUntilSampled
                                              : kUntilSampledInLarge),
          stride_(band_stride(p, sampled)),
          contexts_(static_cast<std::size_t>(layout.indexed())) {
        for_each_signalled_context(p, layout, history, [&](int context) { signalled_.push_back(context); });
    }

    // Follows one row of blocks in so many, of those so many; `states` are those at their starts.
    void follow(Binarizer& binarizer, const std::vector<int>& states, std::int64_t first, std::int64_t step) {
        for (std::int64_t band = first * stride_; band < std::ssize(states); band += step * stride_) {
            start_band();
            binarizer.run_band(
                band, states[static_cast<std::size_t>(band)],
                [&](const Token* begin, const Token* end) { add(begin, end); },
                [&](std::int64_t& count) { return take(count); });
        }
        for (Gathered& context : contexts_) context.flush();
    }

    void add(const Statistics& other) {
        for (std::size_t i = 0; i < contexts_.size(); ++i) contexts_[i].candidates.add(other.contexts_[i].candidates);
    }

    std::vector<std::uint8_t> best() const {
        std::vector<std::uint8_t> indices(contexts_.size());
        for (const int context : signalled_)
            indices[static_cast<std::size_t>(context)] = contexts_[static_cast<std::size_t>(context)].candidates.best();
        return indices;
    }

    // By estimates of what bins and signalling take with these and with none. They err by less than one part in kDoubt,
    // which can only be worth a second coding where there are few elements.
    ShiftCandidates candidates(std::vector<std::uint8_t> indices) const {
        std::uint64_t with = 0, without = 0;
        Estimators some = Estimators::initial(0), none = some;
        const auto signal = [](Estimators& state, unsigned flag) {
            const std::uint64_t rate = Candidates::rate_of(flag, state);
            state.adapt(adaptation(0), flag);
            return rate;
        };
        for (const int context : signalled_) {
            const std::uint8_t index = indices[static_cast<std::size_t>(context)];
            const Candidates& costs = contexts_[static_cast<std::size_t>(context)].candidates;
            with += costs.cost(index) + signal(some, index > 0) + (index > 0 ? kShiftIndexRate : 0);
            without += costs.cost(0) + signal(none, 0);
        }
        const std::uint64_t doubt = p_.rows * p_.width <= kFew ? without / kDoubt : 0;
        return {std::move(indices), with < without + doubt, without <= with + doubt};
    }

  private:
    void start_band() {
        for (Gathered& context : contexts_) context.start_band();
        start_run(0);
    }

    void start_run(std::int64_t run) {
        run_ = run;
        element_ = 0;
        for (Gathered& context : contexts_) context.start_run(run, enough_, static_cast<std::uint64_t>(stride_));
        interest_ = p_.temporal() || p_.codebook() > 0 || p_.history ? Interest() : Interest::none();
        for (const int context : signalled_)
            if (contexts_[static_cast<std::size_t>(context)].weight) widen(context);
    }

    // What is of interest of the next elements; lowers `count` to those of this run.
    Interest take(std::int64_t& count) {
        if (element_ == kSampledRun) start_run(run_ + 1);
        count = std::min(count, kSampledRun - element_);
        element_ += count;
        return interest_;
    }

    void add(const Token* begin, const Token* end) {
        for (const Token* token = begin; token != end; ++token) {
            if (*token >= kBypass) {
                if (*token == kZeros) add_zeros(token[2], token[1]);
                token += 2;
                continue;
            }
            Gathered& context = contexts_[*token >> kTokenShift];
            if (context.weight) context.add(*token & 1);
        }
    }

    void add_zeros(int state, std::int64_t count) {
        std::int64_t more = count + 3;
        for_four_zeros(state, [&](int context) {
            Gathered& each = contexts_[static_cast<std::size_t>(context)];
            for (std::int64_t own = more-- / 4; each.weight && own > 0; --own) each.add(0);
        });
    }

    // Take in what can use this context.
    void widen(int context) {
        const std::int64_t n = layout_.n;
        const auto from = [&](std::int64_t magnitude) { interest_.least = std::min(interest_.least, magnitude); };
        if (context >= layout_.x2)
            from(n + (std::int64_t{1} << (context - layout_.x2)));
        else if (context >= layout_.gtx)
            from(1 + (context - layout_.gtx) / 2);
        else if (context >= layout_.sign)
            from(1);
        else if (context % 3 == 0)
            interest_.after_zero = true;
        else
            interest_.after_other = true;
    }

    Parameters p_;
    ContextLayout layout_;
    std::int64_t enough_, stride_;
    std::vector<Gathered> contexts_;
    std::vector<int> signalled_;
    std::int64_t run_ = 0, element_ = 0;
    Interest interest_;
};

}  // namespace

const Rates kRates = make_rates();

namespace {

Statistics count(const Parameters& p, const Choices& choices, const std::int32_t* levels, int threads, bool sampled) {
    Binarizer binarizer(p, choices, levels);
    const std::vector<int> states = binarizer.band_states();
    const bool history = p.has_history_flag() && choices.hist_dep_sig_prob_enabled_flag;
    const auto followed = std::ssize(states) / band_stride(p, sampled);
    std::vector<Statistics> all;
    const auto start = [&](std::int64_t shares) {
        all.clear();
        while (std::ssize(all) < shares) all.emplace_back(p, binarizer.layout(), history, sampled);
    };
    const auto follow = [&](std::int64_t share) {
        Binarizer own = binarizer;
        all[static_cast<std::size_t>(share)].follow(own, states, share, std::ssize(all));
        return true;
    };
    start(std::clamp<std::int64_t>(followed, 1, threads));
    if (all.size() == 1 || !in_threads(std::ssize(all), threads, follow)) {
        start(1);
        all[0].follow(binarizer, states, 0, 1);
    }
    for (std::size_t share = 1; share < all.size(); ++share) all[0].add(all[share]);
    return std::move(all[0]);
}

}  // namespace

std::vector<std::uint8_t> shift_indices(const Parameters& p, const Choices& choices, const std::int32_t* levels,
                                        int threads, bool sampled) {
    return count(p, choices, levels, threads, sampled).best();
}

ShiftCandidates shift_candidates(const Parameters& p, const Choices& choices, const std::int32_t* levels, int threads) {
    const Statistics statistics = count(p, choices, levels, threads, true);
    return statistics.candidates(statistics.best());
}

}  // namespace nnc
