#include "encoder.hpp"

#include <stdexcept>

namespace nnc {

void Encoder::iae(std::int64_t value, int bits) {
    if (finished_) throw std::logic_error("the codeword is finished");
    if (bits < 0 || bits > 32 ||
        (bits < 32 && value != 0 &&
         (bits == 0 || value < -(std::int64_t{1} << (bits - 1)) || value >= std::int64_t{1} << (bits - 1))))
        throw std::invalid_argument("a value does not fit its number of bits");
    bypass(static_cast<std::uint32_t>(value & ((std::int64_t{1} << bits) - 1)), bits);
}

void Encoder::tensor(const Parameters& p, const Choices& choices, const std::int32_t* levels) {
    if (finished_) throw std::logic_error("the codeword is finished");
    Binarizer binarizer(p, choices, levels);
    LeanContexts contexts(binarizer.layout());
    side_information(p, choices, binarizer, contexts);

    std::vector<Mark>& marks = marks_.emplace_back();
    const bool banded = count_bands(p) > 1;
    binarizer.run(
        [&](std::int64_t, int dq_state) {
            if (!banded) return;
            engine_.restrict_range();
            contexts.restart();
            marks.push_back({position(), engine_.low9(), dq_state});
        },
        [&](const Token* begin, const Token* end) { tokens(begin, end, contexts.data()); });
}

void Encoder::side_information(const Parameters& p, const Choices& choices, const Binarizer& binarizer,
                               LeanContexts& contexts) {
    const ContextLayout& layout = binarizer.layout();
    const auto at = [](int i) { return static_cast<std::size_t>(i); };
    const bool history = p.has_history_flag() && choices.hist_dep_sig_prob_enabled_flag;
    if (p.has_history_flag()) bypass(history, 1);
    if (p.has_row_skip()) bypass(choices.row_skip_enabled_flag, 1);
    for (const std::uint8_t skip : binarizer.row_skip_list()) encode(contexts[at(layout.row_skip)], skip);

    if (!choices.shift_indices.empty() && choices.shift_indices.size() != at(layout.indexed()))
        throw std::invalid_argument("shift_indices must have one value for each context");
    for_each_signalled_context(p, layout, history, [&](int context) {
        const int index = choices.shift_indices.empty() ? 0 : choices.shift_indices[at(context)];
        if (index > 8) throw std::invalid_argument("a shift index lies in 0..8");
        encode(contexts[at(layout.shift)], index > 0);
        if (index > 0) bypass(static_cast<std::uint32_t>(index - 1), 3);
        contexts[at(context)].reset(index);
    });
}

void Encoder::encode(LeanContext& context, unsigned bin) {
    engine_.encode(context, bin);
    if (engine_.is_full()) engine_.flush(bytes_);
}

void Encoder::bypass(std::uint32_t value, int count) {
    for (int rest = count; rest > 0; rest -= 16) {
        const int group = std::min(rest, 16);
        engine_.bypass((value >> (rest - group)) & ((1u << group) - 1), group);
        if (engine_.is_full()) engine_.flush(bytes_);
    }
}

void Encoder::tokens(const Token* begin, const Token* end, LeanContext* contexts) {
    RangeEncoder engine = engine_;  // a local whose address is not taken stays in registers
    for (const Token* token = begin; token != end; ++token) {
        if (*token < kBypass) [[likely]] {
            engine.encode(contexts[*token >> kTokenShift], *token & 1);
            if (!engine.is_full()) [[likely]]
                continue;
        }
        engine_ = engine;
        if (*token < kBypass) {
            engine_.flush(bytes_);
        } else {
            bypass(std::uint32_t{token[1]} << 16 | token[2], *token - kBypass);
            token += 2;
        }
        engine = engine_;
    }
    engine_ = engine;
}

std::vector<std::uint8_t> Encoder::finish() {
    if (finished_) throw std::logic_error("the codeword is finished");
    finished_ = true;
    engine_.finish(bytes_);
    std::vector<std::uint8_t> payload = std::move(bytes_);
    const auto window = [&](std::int64_t position) {  // the nine bits that a decoder holds there
        unsigned bits = 0;
        for (std::int64_t i = position; i < position + 9; ++i)
            bits = bits << 1 | ((payload[static_cast<std::size_t>(i >> 3)] >> (7 - (i & 7))) & 1);
        return bits;
    };
    for (const std::vector<Mark>& marks : marks_) {
        std::vector<EntryPoint>& list = entry_points_.emplace_back();
        for (std::size_t i = 1; i < marks.size(); ++i) {
            const unsigned offset = (window(marks[i].position) - marks[i].low9) & 511;
            list.push_back({marks[i].position - marks[i - 1].position, static_cast<int>(offset), marks[i].dq_state});
        }
    }
    return payload;
}

}  // namespace nnc
