#include "rate_model.hpp"

#include <stdexcept>

#include "encoder.hpp"

namespace nnc {

RateModel::RateModel(int greater_flags, double lambda, const std::vector<std::uint8_t>& shift_indices)
    : layout_(greater_flags),
      unit_(lambda / (1 << kRateUnitBits)),
      models_(static_cast<std::size_t>(layout_.indexed())) {
    if (!shift_indices.empty() && shift_indices.size() != models_.size())
        throw std::invalid_argument("shift_indices must have one value for each context");
    for (std::size_t i = 0; i < models_.size(); ++i) {
        models_[i].parameter_set = shift_indices.empty() ? 0 : shift_indices[i];
        if (models_[i].parameter_set > 8) throw std::invalid_argument("a shift index lies in 0..8");
        models_[i].adaptation = &adaptation(models_[i].parameter_set);
    }
    for (Magnitudes& m : magnitudes_) m.costs.resize(static_cast<std::size_t>(layout_.n + 1));
    restart();
}

void RateModel::restart() {
    for (Model& model : models_) model.estimators = Estimators::initial(model.parameter_set);
    for (int neighbour = 0; neighbour < 3; ++neighbour)
        for (int lane = 0; lane < 8; ++lane)
            for (const unsigned bin : {0u, 1u})
                significance_[bin][neighbour][lane] = bits(ContextLayout::sig + 3 * kLanes[lane] + neighbour, bin);
    magnitudes_[0].stale = magnitudes_[1].stale = remainders_stale_ = true;
    refresh();
}

void RateModel::learn_bin(int context, unsigned bin) {
    Model& model = models_[static_cast<std::size_t>(context)];
    model.estimators.adapt(*model.adaptation, bin);
}

void RateModel::learn(std::int64_t index, int neighbour, int state) {
    const int significance = ContextLayout::sig + 3 * state + neighbour;
    learn_bin(significance, index != 0);
    for (const unsigned bin : {0u, 1u}) significance_[bin][neighbour][kLaneOf[state]] = bits(significance, bin);
    if (index == 0) return;
    const int negative = index < 0;
    const std::int64_t magnitude = negative ? -index : index;
    learn_bin(ContextLayout::sign + neighbour, static_cast<unsigned>(negative));
    magnitudes_[static_cast<std::size_t>(negative)].stale = true;
    for (int j = 0; j < layout_.n; ++j) {
        learn_bin(ContextLayout::gtx + 2 * j + negative, magnitude > j + 1);
        if (magnitude == j + 1) return;
    }
    const int length = std::bit_width(static_cast<std::uint64_t>(magnitude - layout_.n)) - 1;
    for (int i = 0; i < length; ++i) learn_bin(layout_.x2 + i, 1);
    learn_bin(layout_.x2 + length, 0);
    remainders_stale_ = true;
}

std::uint32_t RateModel::bits(int context, unsigned bin) const {
    return kRates[bin][models_[static_cast<std::size_t>(context)].estimators.combined() >> 3];
}

void RateModel::refresh() {
    refresh_flags();
    for (const int negative : {0, 1}) refresh_magnitudes(negative);
    refresh_remainders();
}

void RateModel::refresh_flags() {
    for (int neighbour = 0; neighbour < 3; ++neighbour) {
        const std::uint32_t sign[2] = {bits(ContextLayout::sign + neighbour, 0),
                                       bits(ContextLayout::sign + neighbour, 1)};
        for (int lane = 0; lane < 8; ++lane) {
            flags_.zero[neighbour][lane] = cost(significance_[0][neighbour][lane]);
            for (const int negative : {0, 1})
                flags_.other[negative][neighbour][lane] = cost(significance_[1][neighbour][lane] + sign[negative]);
        }
    }
}

void RateModel::refresh_magnitudes(int negative) {
    Magnitudes& m = magnitudes_[static_cast<std::size_t>(negative)];
    if (!m.stale) return;
    m.stale = false;
    m.all_flags = 0;
    for (int j = 0; j < layout_.n; ++j) {
        const int context = ContextLayout::gtx + 2 * j + negative;
        m.costs[static_cast<std::size_t>(j + 1)] = cost(m.all_flags + bits(context, 0));
        m.all_flags += bits(context, 1);
    }
}

void RateModel::refresh_remainders() {
    if (!remainders_stale_) return;
    remainders_stale_ = false;
    std::uint64_t ones = 0;
    for (std::size_t length = 0; length < kX2Contexts; ++length) {
        const int context = layout_.x2 + static_cast<int>(length);
        remainders_[length + 1] = ones + bits(context, 0) + (length << kRateUnitBits);
        ones += bits(context, 1);
    }
}

}  // namespace nnc
