// Choosing the parameter set of every context: what its bins would cost under each of the nine.
#include <array>
#include <cmath>

#include "encoder.hpp"

namespace nnc {

namespace {

constexpr int kSets = 9;
constexpr std::size_t kBufferedBins = 256;
constexpr std::size_t kUntilMet = 512;
// After so many bins, only one buffer of a context in so many is followed, and counts for all of them.
constexpr std::size_t kUntilSampled = 16384, kSampledEvery = 8;

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

    void restart() {
        seen_ = 0;
        for (int set = 0; set < kSets; ++set) states_[static_cast<std::size_t>(set)] = Estimators::initial(set);
    }

    void feed(const std::uint8_t* bins, std::size_t count) {
        const std::size_t before = seen_;
        seen_ += count;
        if (before < kUntilMet) {
            follow<0, 1, 2>(bins, count);
            follow<3, 7, 8>(bins, count);
            follow<4, 5, 6>(bins, count);
        } else if (before < kUntilSampled) {
            follow_met(bins, count, 1);
        } else if (before / kBufferedBins % kSampledEvery == 0) {
            follow_met(bins, count, kSampledEvery);
        }
    }

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
    // Three sets at a time: their states fit the registers, and none waits for the others.
    template <int kA, int kB, int kC>
    void follow(const std::uint8_t* bins, std::size_t count) {
        Estimators a = states_[kA], b = states_[kB], c = states_[kC];
        std::uint64_t cost_a = 0, cost_b = 0, cost_c = 0;
        for (std::size_t i = 0; i < count; ++i) {
            const unsigned bin = bins[i];
            cost_a += rate_of(bin, a);
            cost_b += rate_of(bin, b);
            cost_c += rate_of(bin, c);
            a.adapt(adaptation(kA), bin);
            b.adapt(adaptation(kB), bin);
            c.adapt(adaptation(kC), bin);
        }
        states_[kA] = a;
        states_[kB] = b;
        states_[kC] = c;
        costs_[kA] += cost_a;
        costs_[kB] += cost_b;
        costs_[kC] += cost_c;
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
            a.adapt(adaptation(0), bin);
            b.adapt(adaptation(3), bin);
            c.adapt(adaptation(4), bin);
            e.adapt(adaptation(8), bin);
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

    static std::uint32_t rate_of(unsigned bin, const Estimators& state) { return kRates[bin][state.combined() >> 3]; }

    std::array<Estimators, kSets> states_;
    std::array<std::uint64_t, kSets> costs_{};
    std::size_t seen_ = 0;
};

// A context's bins, gathered until there are enough for one pass.
struct Gathered {
    Candidates candidates;
    std::size_t count = 0;
    std::array<std::uint8_t, kBufferedBins> bins;

    void add(unsigned bin) {
        bins[count] = static_cast<std::uint8_t>(bin);
        if (++count == kBufferedBins) flush();
    }
    void flush() {
        if (count) candidates.feed(bins.data(), count);
        count = 0;
    }
};

}  // namespace

const Rates kRates = make_rates();

std::vector<std::uint8_t> shift_indices(const Parameters& p, const Choices& choices, const std::int32_t* levels) {
    Binarizer binarizer(p, choices, levels);
    const ContextLayout& layout = binarizer.layout();
    std::vector<Gathered> contexts(static_cast<std::size_t>(layout.indexed()));
    binarizer.run(
        [&](std::int64_t band, int) {
            if (band == 0) return;
            for (Gathered& context : contexts) {
                context.flush();
                context.candidates.restart();
            }
        },
        [&](const Token* begin, const Token* end) {
            for (const Token* token = begin; token != end; ++token) {
                if (*token < kBypass)
                    contexts[*token >> kTokenShift].add(*token & 1);
                else
                    token += 2;
            }
        });

    std::vector<std::uint8_t> indices(static_cast<std::size_t>(layout.indexed()));
    const bool history = p.has_history_flag() && choices.hist_dep_sig_prob_enabled_flag;
    for_each_signalled_context(p, layout, history, [&](int context) {
        Gathered& gathered = contexts[static_cast<std::size_t>(context)];
        gathered.flush();
        indices[static_cast<std::size_t>(context)] = gathered.candidates.best();
    });
    return indices;
}

}  // namespace nnc
