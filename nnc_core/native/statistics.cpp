// Choosing the parameter set of every context: what its bins would cost under each of the nine.
#include <array>
#include <cmath>

#include "encoder.hpp"

namespace nnc {

namespace {

constexpr int kSets = 9;
constexpr std::size_t kBufferedBins = 512;

// Cost of coding `bin` in state q, in units of 2^-15 bit: table[bin][512 + (q >> 3)].
using Rates = std::array<std::array<std::uint32_t, 1024>, 2>;

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

const Rates kRates = make_rates();

// The state of one context under one parameter set, and the cost of its bins so far.
struct Estimate {
    int s0 = 0, s1 = 0;
    std::uint64_t cost = 0;

    bool meets(const Estimate& other) const { return s0 == other.s0 && s1 == other.s1; }
};

template <int kSet>
void step(Estimate& e, unsigned bin) {
    constexpr ParameterSet p = kParameterSets[kSet];
    constexpr auto& step1 = kStep1[p.shift1 - 4];
    constexpr auto& next0 = kNextS0[p.shift0 - 4];
    e.cost += kRates[bin][static_cast<std::size_t>(512 + ((16 * e.s0 + e.s1) >> 3))];
    const int mirror = static_cast<int>(bin) - 1;
    const int change = step1[static_cast<std::size_t>(16 + (((e.s1 ^ mirror) - mirror) >> 7))];
    e.s0 = next0[bin][static_cast<std::size_t>(128 + e.s0)];
    e.s1 += (change ^ mirror) - mirror;
}

// The estimates of one context under all sets, fed with buffers of bins. Sets of equal rates meet: once they are in the
// same state they stay together until the next restart, so that only one of them has to be followed.
class Candidates {
  public:
    Candidates() { restart(); }

    void restart() {
        merged_ = false;
        for (int set = 0; set < kSets; ++set) {
            at(set).s0 = kParameterSets[set].s0();
            at(set).s1 = kParameterSets[set].s1();
        }
    }

    void feed(const std::uint8_t* bins, std::size_t count) {
        if (!merged_) {
            follow<0, 1, 2, 3, 4, 5, 6, 7, 8>(bins, count);
            merged_ = at(0).meets(at(1)) && at(0).meets(at(2)) && at(4).meets(at(5)) && at(4).meets(at(6));
            return;
        }
        const std::uint64_t cost0 = at(0).cost, cost4 = at(4).cost;
        follow<0, 3, 4, 7, 8>(bins, count);
        for (const int set : {1, 2}) join(at(set), at(0), cost0);
        for (const int set : {5, 6}) join(at(set), at(4), cost4);
    }

    std::uint8_t best() const {
        std::uint8_t chosen = 0;
        std::uint64_t lowest = estimates_[0].cost;
        for (std::uint8_t set = 1; set < kSets; ++set) {
            if (estimates_[set].cost + kShiftIndexRate >= lowest) continue;
            lowest = estimates_[set].cost + kShiftIndexRate;
            chosen = set;
        }
        return chosen;
    }

  private:
    Estimate& at(int set) { return estimates_[static_cast<std::size_t>(set)]; }

    static void join(Estimate& e, const Estimate& leader, std::uint64_t leader_cost_before) {
        const std::uint64_t cost = e.cost + leader.cost - leader_cost_before;
        e = leader;
        e.cost = cost;
    }

    template <int... kFollowed>
    void follow(const std::uint8_t* bins, std::size_t count) {
        std::array<Estimate, sizeof...(kFollowed)> local{at(kFollowed)...};
        for (std::size_t i = 0; i < count; ++i) {
            std::size_t next = 0;
            (step<kFollowed>(local[next++], bins[i]), ...);
        }
        std::size_t next = 0;
        ((at(kFollowed) = local[next++]), ...);
    }

    std::array<Estimate, kSets> estimates_;
    bool merged_ = false;
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

std::uint32_t rate(unsigned bin, int q) { return kRates[bin][static_cast<std::size_t>(512 + (q >> 3))]; }

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
                    contexts[*token >> 1].add(*token & 1);
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
