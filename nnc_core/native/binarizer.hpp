// From levels to bins: a tensor becomes a stream of tokens, which is counted (shift optimisation) or coded.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "parameters.hpp"
#include "scan.hpp"

namespace nnc {

// A token is (context << kTokenShift | bin), or one of two markers: for bypass bins, followed by two tokens with their
// value, or for a run of zeros after a zero, followed by their number and the state of the first.
using Token = std::uint16_t;
inline constexpr int kTokenShift = 4;     // so that a token without its bin says where in memory the context is
inline constexpr Token kBypass = 0xFF00;  // + number of bins; contexts end at 53 + 4 * 256 + 33
inline constexpr Token kZeros = 0xFFFF;

// Calls `use(context)` for the contexts of four zeros after a zero; those of the next four are the same. Without
// dependent quantization the state is always 0, which a zero does not change with it either.
template <class Use>
void for_four_zeros(int state, Use&& use) {
    for (int i = 0; i < 4; ++i, state = kNextState[state][0]) use(ContextLayout::sig + 3 * state);
}

// Which elements are of interest: those whose index has at least this magnitude (0: all), and those that follow on a
// zero or on another index.
struct Interest {
    std::int64_t least = 0;
    bool after_zero = false, after_other = false;

    static Interest none() { return {kUnlimited, false, false}; }
    bool in_all() const { return least == 0 || (after_zero && after_other); }
};

// Whether a row of the tensor is all zero.
bool has_zero_rows(const Parameters& p, const std::int32_t* levels);

class Binarizer {
  public:
    Binarizer(const Parameters& p, const Choices& choices, const std::int32_t* levels);

    const ContextLayout& layout() const { return layout_; }
    const std::vector<std::uint8_t>& row_skip_list() const { return row_skip_list_; }

    // Calls `band(index, dq_state)` at the start of every row of blocks and `tokens(begin, end)` for runs of tokens.
    template <class Band, class Tokens>
    void run(Band&& band, Tokens&& tokens) {
        run(band, tokens, in_all);
    }

    // The tokens of one row of blocks, from this state on.
    template <class Tokens>
    void run_band(std::int64_t band, int state, Tokens&& tokens) {
        run_band(band, state, tokens, in_all);
    }

    // The same for a part of the elements: `interest(count)` says which of the next ones, and may lower their number.
    template <class Tokens, class Choose>
    void run_band(std::int64_t band, int state, Tokens&& tokens, Choose&& interest) {
        state_ = state;
        previous_ = 0;
        traverse_band(p_, band, [&](const Segment& segment) { run_segment(segment, tokens, interest); });
    }

    // The state at the start of every row of blocks.
    std::vector<int> band_states();

  private:
    static constexpr std::int64_t kChunk = 1024;
    static constexpr auto in_all = [](std::int64_t&) { return Interest(); };

    template <class Band, class Tokens, class Choose>
    void run(Band&& band, Tokens&& tokens, Choose&& interest) {
        state_ = 0;
        if (p_.codebook() == 1) require_zeros();
        traverse(
            p_,
            [&](std::int64_t index) {
                previous_ = 0;
                band(index, state_);
            },
            [&](const Segment& segment) { run_segment(segment, tokens, interest); });
    }

    template <class Tokens, class Choose>
    void run_segment(const Segment& segment, Tokens& tokens, Choose&& interest) {
        if (is_left_out(segment)) {
            if (p_.dq_flag) state_ = after_zeros(state_, segment.length);
            return;
        }
        for (std::int64_t done = 0; done < segment.length;) {
            std::int64_t count = std::min<std::int64_t>(kChunk, segment.length - done);
            const Interest wanted = interest(count);
            if (wanted.in_all())
                tokens(buffer_.data(), binarize(segment.first + done, count));
            else
                pass_over(segment.first + done, count, wanted, tokens);
            done += count;
        }
    }
    bool is_left_out(const Segment& segment) const {
        return p_.codebook() == 1 || (!row_skip_list_.empty() && row_skip_list_[static_cast<std::size_t>(segment.row)]);
    }
    void find_zero_rows();
    void require_zeros() const;
    const Token* binarize(std::int64_t first, std::int64_t count);
    template <class Tokens>
    void pass_over(std::int64_t first, std::int64_t count, const Interest& interest, Tokens&& tokens);
    template <bool kDependent>
    Token* binarize_plain(const std::int32_t* levels, std::int64_t count, Token* out);
    Token* binarize_general(std::int64_t first, std::int64_t count, Token* out);
    template <bool kDependent>
    std::int64_t coded_index(std::int32_t level);
    Token* remainder(std::int32_t level, std::int64_t magnitude, std::int64_t largest, Token* out) const;

    Parameters p_;
    const std::int32_t* levels_;
    ContextLayout layout_;
    bool history_;
    std::vector<std::uint8_t> row_skip_list_;
    std::vector<Token> buffer_;
    std::vector<Token> greater_[2];  // flags of value 1 in a row, for positive and negative levels
    int state_ = 0;
    int previous_ = 0;  // which neighbour context: 0 after a zero, 1 after a negative, 2 after a positive level
};

// Steps state and neighbour; makes tokens of what is of interest only.
template <class Tokens>
void Binarizer::pass_over(std::int64_t first, std::int64_t count, const Interest& interest, Tokens&& tokens) {
    const int round = p_.dq_flag ? 1 : 0;  // a level that fits its state is twice the index, or one less
    unsigned at = 8 * static_cast<unsigned>(state_);
    int previous = previous_;
    for (std::int64_t i = first; i < first + count; ++i) {
        const std::int64_t level = levels_[i], index = ((level < 0 ? -level : level) + round) >> round;
        if (index >= interest.least || (previous ? interest.after_other : interest.after_zero)) [[unlikely]] {
            state_ = static_cast<int>(at / 8);
            previous_ = previous;
            tokens(buffer_.data(), binarize(i, 1));
        }
        at = static_cast<unsigned>(kStatesAfter[index & 1] >> at) & 0x38;
        previous = index == 0 ? 0 : 2 - (level < 0);
    }
    state_ = p_.dq_flag ? static_cast<int>(at / 8) : 0;
    previous_ = previous;
}

}  // namespace nnc
