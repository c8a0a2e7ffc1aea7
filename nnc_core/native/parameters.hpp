// What the headers say about one tensor, and what the encoder chose; the names of nnc_core/entropy/parameters.py.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "context.hpp"

namespace nnc {

// A payload that no conforming encoder writes.
struct CodewordError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// One that ends before its tensors do.
struct TruncatedCodewordError : CodewordError {
    using CodewordError::CodewordError;
};

// Stands for "no codebook limits the magnitude"; beyond everything that the binarization can express.
inline constexpr std::int64_t kUnlimited = std::int64_t{1} << 40;

struct Parameters {
    std::int64_t rows = 0, width = 0;
    int general_profile_idc = 1;
    int cabac_unary_length_minus1 = 10;
    bool dq_flag = false;
    int scan_order = 0;
    bool parent_node_id_present_flag = false;
    std::int64_t codebook_size = 0;
    std::int64_t codebook_zero_offset = 0;
    const std::int32_t* base = nullptr;     // co-located integers of the parent: temporal contexts
    const std::uint8_t* history = nullptr;  // 1 where an earlier update was not zero

    bool extended() const { return general_profile_idc == 1; }
    int greater_flags() const { return cabac_unary_length_minus1 + 1; }
    // In the base tool set a codebook does not change how its indices are coded.
    std::int64_t codebook() const { return extended() ? codebook_size : 0; }
    bool temporal() const { return extended() && base != nullptr; }
    bool matrix() const { return rows > 1 && width > 1; }
    bool has_row_skip() const { return extended() && matrix() && codebook() != 1; }
    bool has_history_flag() const { return has_row_skip() && parent_node_id_present_flag; }
    std::int64_t block_size() const { return matrix() && scan_order > 0 ? std::int64_t{4} << scan_order : 0; }

    // Largest magnitude that can be coded for a sign (clause 10, codebook-limited binarization).
    std::int64_t largest(bool negative) const {
        if (codebook() == 0) return kUnlimited;
        return negative ? codebook_zero_offset : codebook() - 1 - codebook_zero_offset;
    }
    bool one_sided() const { return codebook() > 0 && (largest(false) == 0 || largest(true) == 0); }
};

struct Choices {
    bool row_skip_enabled_flag = false;
    bool hist_dep_sig_prob_enabled_flag = false;
    std::vector<std::uint8_t> shift_indices;  // one for each indexed context; empty: all 0
};

struct EntryPoint {
    std::int64_t bit_offset;
    int cabac_offset;
    int dq_state;
};

// Calls `use(context)` for every context whose shift index is in the payload, in the payload's order.
template <class Use>
void for_each_signalled_context(const Parameters& p, const ContextLayout& layout, bool history, Use&& use) {
    const auto group = [&](int first, std::int64_t size, std::int64_t sent) {
        for (int i = 0; i < std::min(size, sent); ++i) use(first + i);
    };
    const std::int64_t all = std::numeric_limits<std::int64_t>::max();
    const std::int64_t states = p.dq_flag ? 8 : 1;
    const std::int64_t largest = std::max(p.largest(false), p.largest(true));
    const std::int64_t significance = p.codebook() == 1 ? 0 : all;
    const std::int64_t sign = p.codebook() == 1 || p.one_sided() ? 0 : all;

    group(layout.sig, 3 * states, significance);
    if (p.temporal()) group(layout.sig_tca, 2 * states, significance);
    if (history) group(layout.sig_hist, states, significance);
    group(layout.sign, 3, sign);
    if (p.temporal()) group(layout.sign_tca, 2, sign);
    group(layout.gtx, 2 * layout.n, 2 * largest);
    if (p.temporal()) group(layout.gtx_tca, 2 * layout.n, 2 * (largest - 1));
    for (int i = 0; i < kX2Contexts; ++i)
        if (layout.n + (std::int64_t{2} << i) - 2 < largest) use(layout.x2 + i);
}

// The effective contexts of one tensor.
template <class Context>
class ContextSet {
  public:
    explicit ContextSet(const ContextLayout& layout) : contexts_(static_cast<std::size_t>(layout.count)) {
        for (Context& c : contexts_) c.reset(0);
    }
    Context& operator[](std::size_t i) { return contexts_[i]; }
    Context* data() { return contexts_.data(); }
    void restart() {
        for (Context& c : contexts_) c.reset(c.parameter_set);
    }

  private:
    std::vector<Context> contexts_;
};

using Contexts = ContextSet<Context>;
using LeanContexts = ContextSet<LeanContext>;

}  // namespace nnc
