// The inner loops of decoding: from bins to the levels of one run of elements.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>

#include "engine.hpp"
#include "parameters.hpp"
#include "scan.hpp"

namespace nnc {

class LevelDecoder {
  public:
    LevelDecoder(const Parameters& p, const ContextLayout& layout, bool history, Context* contexts)
        : p_(p), layout_(layout), contexts_(contexts), history_(history) {}

    void restart() { previous_ = 0; }
    void restart(int state) {
        previous_ = 0;
        state_ = state;
    }
    int state() const { return state_; }
    void skip(std::int64_t count) {
        if (p_.dq_flag) state_ = after_zeros(state_, count);
    }

    void decode(RangeDecoder& engine, std::int64_t first, std::int64_t count, std::int32_t* levels) {
        if (p_.temporal() || history_ || p_.codebook() > 0)
            decode_general(engine, first, count, levels);
        else if (p_.dq_flag)
            decode_plain<true>(engine, levels + first, count);
        else
            decode_plain<false>(engine, levels + first, count);
    }

  private:
    static constexpr int kZerosBeforeRun = 4;
    static constexpr std::int64_t kLargest = std::numeric_limits<std::int32_t>::max();

    // Apart from what calls it, so that engines for WebAssembly can replace it by faster code in the middle of a
    // tensor.
    template <bool kDependent>
    NNC_APART void decode_plain(RangeDecoder& shared, std::int32_t* levels, std::int64_t count) {
        SharingRangeDecoder engine(shared);  // a local keeps the registers in registers
        Context* const contexts = contexts_;
        const int flags = layout_.n;
        int state = state_, previous = previous_, zeros = 0;
        for (std::int64_t i = 0; i < count; ++i) {
            if (zeros == kZerosBeforeRun) [[unlikely]] {
                zeros = 0;
                SharingRangeDecoder copy(engine);  // the address of `engine` never leaves this function
                const std::int64_t run = decode_zeros<kDependent>(copy, state, count - i);
                engine.follow(copy);
                std::fill_n(levels + i, run, 0);
                i += run;
                if (i == count) break;
            }
            if (!engine.decode(contexts[(kDependent ? 3 * state : 0) + previous])) {
                levels[i] = 0;
                previous = 0;
                if (kDependent) state = kNextState[state][0];
                ++zeros;
                continue;
            }
            zeros = 0;
            const int negative = static_cast<int>(engine.decode_even(contexts[ContextLayout::sign + previous]));
            previous = 2 - negative;
            Context* flag = contexts + ContextLayout::gtx + negative;
            std::int64_t magnitude = 1;
            while (engine.decode(*flag)) {
                flag += 2;
                if (++magnitude > flags) [[unlikely]] {
                    SharingRangeDecoder copy(engine);
                    magnitude += remainder(copy, kUnlimited, magnitude);
                    engine.follow(copy);
                    break;
                }
            }
            levels[i] = kDependent ? expand(magnitude, negative, state) : signed_level(magnitude, negative);
        }
        state_ = state;
        previous_ = previous;
        shared.follow(engine);
    }

    // Some of the zeros that come after many others; `state` advances.
    template <bool kDependent>
    std::int64_t decode_zeros(SharingRangeDecoder& engine, int& state, std::int64_t limit) {
        std::array<Context*, 4> models;
        int count = 0, next = state;
        bool settled = true;
        do {
            Context& model = contexts_[kDependent ? 3 * next : 0];
            if (model.mps) return 0;
            models[static_cast<std::size_t>(count++)] = &model;
            settled = settled && model.widths == models[0]->widths && model.settled_on_zero();
            if (kDependent) next = kNextState[next][0];
        } while (next != state);
        const std::int64_t run = settled      ? engine.decode_settled(models[0]->widths, limit)
                                 : count == 1 ? engine.decode_zeros<1>({models[0]}, limit)
                                 : count == 2 ? engine.decode_zeros<2>({models[0], models[1]}, limit)
                                              : engine.decode_zeros<4>(models, limit);
        if (kDependent) state = after_zeros(state, run);
        return run;
    }

    void decode_general(RangeDecoder& engine, std::int64_t first, std::int64_t count, std::int32_t* levels) {
        for (std::int64_t i = first; i < first + count; ++i) {
            const std::int64_t base = p_.temporal() ? p_.base[i] : 0;
            const std::int64_t far = base < 0 ? -base : base;
            const int state = p_.dq_flag ? state_ : 0;
            int significance = ContextLayout::sig + 3 * state + previous_;
            if (history_ && p_.history && p_.history[i])
                significance = ContextLayout::sig_hist + state;
            else if (base != 0)
                significance = ContextLayout::sig_tca + 2 * state + (far > 1);
            if (!engine.decode(contexts_[significance])) {
                levels[i] = 0;
                previous_ = 0;
                if (p_.dq_flag) state_ = kNextState[state_][0];
                continue;
            }
            const bool negative = sign(engine, base);
            previous_ = 2 - negative;
            const std::int64_t magnitude = decode_magnitude(engine, base, far, negative);
            levels[i] = p_.dq_flag ? expand(magnitude, negative, state_) : signed_level(magnitude, negative);
        }
    }

    bool sign(RangeDecoder& engine, std::int64_t base) {
        if (p_.one_sided()) return p_.codebook_zero_offset != 0;
        return engine.decode_even(
            contexts_[base != 0 ? ContextLayout::sign_tca + (base > 0) : ContextLayout::sign + previous_]);
    }

    std::int64_t decode_magnitude(RangeDecoder& engine, std::int64_t base, std::int64_t far, bool negative) {
        const std::int64_t largest = p_.largest(negative);
        std::int64_t magnitude = 1;
        for (std::int64_t j = 0; j < layout_.n && magnitude < largest; ++j) {
            const std::int64_t context =
                base != 0 ? layout_.gtx_tca + 2 * j + (far < j) : ContextLayout::gtx + 2 * j + negative;
            if (!engine.decode(contexts_[context])) return magnitude;
            ++magnitude;
        }
        if (magnitude < largest && magnitude > layout_.n) magnitude += remainder(engine, largest, magnitude);
        if (magnitude > largest) throw CodewordError("a level lies outside the codebook");
        return magnitude;
    }

    // What a magnitude has beyond the greater-than flags, which have brought it to `reached`.
    template <class Engine>
    std::int64_t remainder(Engine& engine, std::int64_t largest, std::int64_t reached) {
        int length = 0;
        while (engine.decode(contexts_[layout_.x2 + length])) {
            reached += std::int64_t{1} << length;
            if (++length == kX2Contexts) throw CodewordError("a level does not fit 32 bits");
            if (reached + (std::int64_t{1} << length) > largest) break;
        }
        return (std::int64_t{1} << length) - 1 + engine.bypass(length);
    }

    static std::int32_t signed_level(std::int64_t magnitude, int negative) {
        if (magnitude > kLargest) throw CodewordError("a level does not fit 32 bits");
        return static_cast<std::int32_t>(negative ? -magnitude : magnitude);
    }

    // The multiple of the step size that a coded index means in this state of dependent quantization.
    static std::int32_t expand(std::int64_t magnitude, int negative, int& state) {
        const std::int64_t level = 2 * magnitude - (state & 1);
        state = kNextState[state][magnitude & 1];
        return signed_level(level, negative);
    }

    const Parameters& p_;
    const ContextLayout& layout_;
    Context* contexts_;
    bool history_;
    int state_ = 0;
    int previous_ = 0;  // which neighbour context: 0 after a zero, 1 after a negative, 2 after a positive level
};

}  // namespace nnc
