// What levels cost in bits, as an adaptive coder learns it: the rates of a rate-aware quantizer.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <vector>

#include "context.hpp"
#include "trellis.hpp"

namespace nnc {

// One set of contexts, taught by the indices that seem to be chosen; the costs stand still until `refresh`. Costs are
// in units of the squared step: bits times lambda. Bits are added up exactly, in units of 2^-15.
class RateModel {
  public:
    // `shift_indices`: where the contexts start and how they adapt, one for each; empty stands for 0 everywhere.
    RateModel(int greater_flags, double lambda, const std::vector<std::uint8_t>& shift_indices);

    // As at the start of a row of blocks.
    void restart();
    // Take in a coded index, after a neighbour (see FlagCosts), in a state of dependent quantization.
    void learn(std::int64_t index, int neighbour, int state);
    void refresh();

    const FlagCosts& flags() const { return flags_; }
    // Everything beyond significance and sign; magnitude >= 1.
    double magnitude(int negative, std::int64_t magnitude) const {
        const Magnitudes& m = magnitudes_[negative];
        if (magnitude <= layout_.n) [[likely]]
            return m.costs[static_cast<std::size_t>(magnitude)];
        return cost(m.all_flags + remainders_[std::bit_width(static_cast<std::uint64_t>(magnitude - layout_.n))]);
    }

  private:
    struct Model {
        const Adaptation* adaptation;
        Estimators estimators;
        std::uint8_t parameter_set;
    };
    // Magnitudes of one sign.
    struct Magnitudes {
        std::vector<double> costs;    // of those that need no remainder
        std::uint64_t all_flags = 0;  // bits of all flags greater_x being 1
        bool stale = true;
    };

    double cost(std::uint64_t bits) const { return unit_ * static_cast<double>(bits); }
    void learn_bin(int context, unsigned bin);
    std::uint32_t bits(int context, unsigned bin) const;
    void refresh_flags();
    void refresh_magnitudes(int negative);
    void refresh_remainders();

    ContextLayout layout_;
    double unit_;  // cost of 2^-15 bit
    std::vector<Model> models_;
    std::uint32_t significance_[2][3][8];  // bits of sig_flag: [bin][neighbour][lane]
    FlagCosts flags_;
    std::array<Magnitudes, 2> magnitudes_;
    std::array<std::uint64_t, 1 + kX2Contexts> remainders_{};  // bits, by the length of what exceeds the flags
    bool remainders_stale_ = true;
};

}  // namespace nnc
