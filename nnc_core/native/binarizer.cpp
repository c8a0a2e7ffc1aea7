#include "binarizer.hpp"

#include <algorithm>
#include <bit>
#include <limits>
#include <stdexcept>

namespace nnc {

namespace {

// Most tokens of one level: significance, sign, the greater-than flags, the prefix, and the bypass marker with its
// value.
constexpr int kTokensBeyondFlags = 2 + kX2Contexts + 3;
constexpr int kZerosBeforeRun = 4, kFewestZeros = 16;
constexpr int kCopy = 16;  // flags are copied in groups of this many tokens

bool all_zero(const std::int32_t* begin, std::int64_t count) {
    return std::all_of(begin, begin + count, [](std::int32_t v) { return v == 0; });
}

}  // namespace

bool has_zero_rows(const Parameters& p, const std::int32_t* levels) {
    for (std::int64_t row = 0; row < p.rows; ++row)
        if (all_zero(levels + row * p.width, p.width)) return true;
    return false;
}

Binarizer::Binarizer(const Parameters& p, const Choices& choices, const std::int32_t* levels)
    : p_(p),
      levels_(levels),
      layout_(p.greater_flags()),
      history_(p.has_history_flag() && choices.hist_dep_sig_prob_enabled_flag && p.history) {
    if (p.has_row_skip() && choices.row_skip_enabled_flag) find_zero_rows();
    const std::int64_t chunk = std::min(kChunk, p.rows * p.width);
    buffer_.resize(static_cast<std::size_t>(chunk * (layout_.n + kTokensBeyondFlags) + kCopy));
    for (int negative = 0; negative < 2; ++negative) {
        greater_[negative].resize(static_cast<std::size_t>(layout_.n + kCopy));
        for (int j = 0; j < layout_.n; ++j)
            greater_[negative][static_cast<std::size_t>(j)] =
                static_cast<Token>((layout_.gtx + 2 * j + negative) << kTokenShift | 1);
    }
}

std::vector<int> Binarizer::band_states() {
    std::vector<int> states;
    if (count_bands(p_) == 1) return {0};
    run([&](std::int64_t, int dq_state) { states.push_back(dq_state); }, [](const Token*, const Token*) {},
        [](std::int64_t&) { return Interest::none(); });
    return states;
}

void Binarizer::find_zero_rows() {
    row_skip_list_.resize(static_cast<std::size_t>(p_.rows));
    for (std::int64_t row = 0; row < p_.rows; ++row)
        row_skip_list_[static_cast<std::size_t>(row)] = all_zero(levels_ + row * p_.width, p_.width);
}

void Binarizer::require_zeros() const {
    if (!all_zero(levels_, p_.rows * p_.width)) throw std::invalid_argument("a level lies outside the codebook");
}

const Token* Binarizer::binarize(std::int64_t first, std::int64_t count) {
    if (p_.temporal() || history_ || p_.codebook() > 0) return binarize_general(first, count, buffer_.data());
    if (p_.dq_flag) return binarize_plain<true>(levels_ + first, count, buffer_.data());
    return binarize_plain<false>(levels_ + first, count, buffer_.data());
}

// Undo the reconstruction of dependent quantization, and step its state.
template <bool kDependent>
std::int64_t Binarizer::coded_index(std::int32_t level) {
    if (!kDependent) return level;
    const int odd = state_ & 1;
    const std::int64_t magnitude = level < 0 ? -std::int64_t{level} : level;
    const std::int64_t sum = level == 0 ? 0 : magnitude + odd;
    if (sum & 1) throw std::invalid_argument("a level does not fit the state of dependent quantization");
    state_ = kNextState[state_][(sum >> 1) & 1];
    return level < 0 ? -(sum >> 1) : sum >> 1;
}

// What is left of a magnitude beyond the greater-than flags: exponential-Golomb with a context-coded prefix. The zero
// that ends the prefix is left out where one more 1 would lead beyond `largest`.
Token* Binarizer::remainder(std::int32_t level, std::int64_t magnitude, std::int64_t largest, Token* out) const {
    if (level == std::numeric_limits<std::int32_t>::min()) throw std::invalid_argument("-2147483648 cannot be coded");
    const std::int64_t rest = magnitude - layout_.n;
    const int length = std::bit_width(static_cast<std::uint64_t>(rest)) - 1;
    for (int i = 0; i < length; ++i) *out++ = static_cast<Token>((layout_.x2 + i) << kTokenShift | 1);
    if (length == 0 || layout_.n + (std::int64_t{2} << length) <= largest)
        *out++ = static_cast<Token>((layout_.x2 + length) << kTokenShift);
    if (length == 0) return out;
    const auto value = static_cast<std::uint32_t>(rest - (std::int64_t{1} << length));
    *out++ = static_cast<Token>(kBypass + length);
    *out++ = static_cast<Token>(value >> 16);
    *out++ = static_cast<Token>(value);
    return out;
}

namespace {

// How many zeros come first; 0 for a few.
std::int64_t count_zeros(const std::int32_t* levels, std::int64_t count) {
    const auto group_of_zeros = [&](std::int64_t at) {
        std::int32_t any = 0;
        for (std::int64_t i = at; i < at + kFewestZeros; ++i) any |= levels[i];
        return any == 0;
    };
    std::int64_t done = 0;
    while (done + kFewestZeros <= count && group_of_zeros(done)) done += kFewestZeros;
    return done;
}

}  // namespace

template <bool kDependent>
Token* Binarizer::binarize_plain(const std::int32_t* levels, std::int64_t count, Token* out) {
    int previous = previous_, zeros = 0;
    for (std::int64_t i = 0; i < count; ++i) {
        const int significance = layout_.sig + 3 * (kDependent ? state_ : 0) + previous;
        const std::int64_t index = coded_index<kDependent>(levels[i]);
        if (index == 0) {
            *out++ = static_cast<Token>(significance << kTokenShift);
            previous = 0;
            if (++zeros < kZerosBeforeRun) continue;
            zeros = 0;
            if (const std::int64_t run = count_zeros(levels + i + 1, count - i - 1)) {
                *out++ = kZeros;
                *out++ = static_cast<Token>(run);
                *out++ = static_cast<Token>(kDependent ? state_ : 0);
                i += run;
                if (kDependent) state_ = after_zeros(state_, run);
            }
            continue;
        }
        zeros = 0;
        const int negative = index < 0;
        const std::int64_t magnitude = negative ? -index : index;
        *out++ = static_cast<Token>(significance << kTokenShift | 1);
        *out++ = static_cast<Token>((layout_.sign + previous) << kTokenShift | negative);
        previous = 2 - negative;
        const Token* flags = greater_[negative].data();
        const int sent = static_cast<int>(std::min<std::int64_t>(magnitude, layout_.n));
        for (int j = 0; j < sent; j += kCopy) std::memcpy(out + j, flags + j, kCopy * sizeof(Token));
        out += sent;
        if (magnitude <= layout_.n)
            out[-1] ^= 1;
        else
            out = remainder(levels[i], magnitude, kUnlimited, out);
    }
    previous_ = previous;
    return out;
}

Token* Binarizer::binarize_general(std::int64_t first, std::int64_t count, Token* out) {
    for (std::int64_t i = first; i < first + count; ++i) {
        const std::int64_t base = p_.temporal() ? p_.base[i] : 0;
        const std::int64_t far = base < 0 ? -base : base;
        const int state = p_.dq_flag ? state_ : 0;
        int significance = layout_.sig + 3 * state + previous_;
        if (history_ && p_.history[i])
            significance = layout_.sig_hist + state;
        else if (base != 0)
            significance = layout_.sig_tca + 2 * state + (far > 1);
        const std::int64_t index = p_.dq_flag ? coded_index<true>(levels_[i]) : levels_[i];
        *out++ = static_cast<Token>(significance << kTokenShift | (index != 0));
        const int sign = base != 0 ? layout_.sign_tca + (base > 0) : layout_.sign + previous_;
        const int negative = index < 0;
        previous_ = index == 0 ? 0 : 2 - negative;
        if (index == 0) continue;

        const std::int64_t magnitude = negative ? -index : index;
        const std::int64_t largest = p_.largest(negative);
        if (magnitude > largest) throw std::invalid_argument("a level lies outside the codebook");
        if (!p_.one_sided()) *out++ = static_cast<Token>(sign << kTokenShift | negative);
        const std::int64_t flags = std::min<std::int64_t>(layout_.n, largest - 1);
        for (std::int64_t j = 0; j < flags && j < magnitude; ++j) {
            const auto context = base != 0 ? layout_.gtx_tca + 2 * j + (far < j) : layout_.gtx + 2 * j + negative;
            *out++ = static_cast<Token>(context << kTokenShift | (magnitude > j + 1));
        }
        if (magnitude <= layout_.n || largest <= layout_.n + 1) continue;
        out = remainder(levels_[i], magnitude, largest, out);
    }
    return out;
}

}  // namespace nnc
