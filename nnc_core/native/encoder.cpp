#include "encoder.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "threads.hpp"

namespace nnc {

namespace {

// contexts[token >> kTokenShift]; compilers do not see that one shift undoes the other.
LeanContext& context_of(Token token, LeanContext* contexts) {
    static_assert(sizeof(LeanContext) == 1 << kTokenShift);
    constexpr unsigned kBin = (1u << kTokenShift) - 1;
    return *reinterpret_cast<LeanContext*>(reinterpret_cast<char*>(contexts) + (unsigned{token} & ~kBin));
}

}  // namespace

void Encoder::iae(std::int64_t value, int bits) {
    if (finished_) throw std::logic_error("the codeword is finished");
    if (bits < 0 || bits > 32 ||
        (bits < 32 && value != 0 &&
         (bits == 0 || value < -(std::int64_t{1} << (bits - 1)) || value >= std::int64_t{1} << (bits - 1))))
        throw std::invalid_argument("a value does not fit its number of bits");
    word_.bypass(static_cast<std::uint32_t>(value & ((std::int64_t{1} << bits) - 1)), bits);
}

void Encoder::tensor(const Parameters& p, const Choices& choices, const std::int32_t* levels, int threads) {
    if (finished_) throw std::logic_error("the codeword is finished");
    Binarizer binarizer(p, choices, levels);
    LeanContexts contexts(binarizer.layout());
    side_information(p, choices, binarizer, contexts);

    std::vector<Mark>& marks = marks_.emplace_back();
    const bool banded = count_bands(p) > 1;
    if (threads > 1 && banded && parallel(p, binarizer, contexts, threads)) return;
    binarizer.run(
        [&](std::int64_t, int dq_state) {
            if (!banded) return;
            word_.start_band(marks, dq_state);
            contexts.restart();
        },
        [&](const Token* begin, const Token* end) { word_.tokens(begin, end, contexts.data()); });
}

// Whether that is possible: nothing is changed before all rows of blocks are coded.
bool Encoder::parallel(const Parameters& p, const Binarizer& binarizer, const LeanContexts& contexts, int threads) {
    const std::vector<int> states = Binarizer(binarizer).band_states();
    std::vector<Codeword> bands(states.size(), Codeword(RangeEncoder::at_entry_point()));
    const auto code = [&](std::int64_t band) {
        const auto i = static_cast<std::size_t>(band);
        Binarizer own = binarizer;
        LeanContexts models = contexts;
        models.restart();
        own.run_band(band, states[i],
                     [&](const Token* begin, const Token* end) { bands[i].tokens(begin, end, models.data()); });
        return true;
    };
    if (!in_threads(count_bands(p), threads, code)) return false;
    for (std::size_t i = 0; i < bands.size(); ++i) {
        word_.start_band(marks_.back(), states[i]);
        word_.append(std::move(bands[i]));
    }
    return true;
}

void Encoder::side_information(const Parameters& p, const Choices& choices, const Binarizer& binarizer,
                               LeanContexts& contexts) {
    const ContextLayout& layout = binarizer.layout();
    const auto at = [](int i) { return static_cast<std::size_t>(i); };
    const bool history = p.has_history_flag() && choices.hist_dep_sig_prob_enabled_flag;
    if (p.has_history_flag()) word_.bypass(history, 1);
    if (p.has_row_skip()) word_.bypass(choices.row_skip_enabled_flag, 1);
    for (const std::uint8_t skip : binarizer.row_skip_list()) word_.encode(contexts[at(layout.row_skip)], skip);

    if (!choices.shift_indices.empty() && choices.shift_indices.size() != at(layout.indexed()))
        throw std::invalid_argument("shift_indices must have one value for each context");
    for_each_signalled_context(p, layout, history, [&](int context) {
        const int index = choices.shift_indices.empty() ? 0 : choices.shift_indices[at(context)];
        if (index > 8) throw std::invalid_argument("a shift index lies in 0..8");
        word_.encode(contexts[at(layout.shift)], index > 0);
        if (index > 0) word_.bypass(static_cast<std::uint32_t>(index - 1), 3);
        contexts[at(context)].reset(index);
    });
}

void Codeword::encode(LeanContext& context, unsigned bin) {
    engine_.encode(context, bin);
    if (engine_.is_full()) engine_.flush(bytes_);
}

void Codeword::bypass(std::uint32_t value, int count) {
    for (int rest = count; rest > 0; rest -= 16) {
        const int group = std::min(rest, 16);
        engine_.bypass((value >> (rest - group)) & ((1u << group) - 1), group);
        if (engine_.is_full()) engine_.flush(bytes_);
    }
}

void Codeword::tokens(const Token* begin, const Token* end, LeanContext* contexts) {
    RangeEncoder engine = engine_;  // a local whose address is not taken stays in registers
    const auto code = [&](Token token) { engine.encode(context_of(token, contexts), token & 1); };
    const Token* token = begin;
    while (token != end) {
        // Two bins at a time: there is always room for those.
        while (end - token >= 2 && std::max(token[0], token[1]) < kBypass) [[likely]] {
            code(token[0]);
            code(token[1]);
            token += 2;
            if (engine.is_full()) [[unlikely]] {
                engine_ = engine;
                engine_.flush(bytes_);
                engine = engine_;
            }
        }
        if (token == end) break;
        if (*token < kBypass) {
            code(*token++);
            engine_ = engine;
            if (engine_.is_full()) engine_.flush(bytes_);
        } else {
            engine_ = engine;
            if (*token == kZeros)
                zeros(token[2], token[1], contexts);
            else
                bypass(std::uint32_t{token[1]} << 16 | token[2], *token - kBypass);
            token += 3;
        }
        engine = engine_;
    }
    engine_ = engine;
}

void Codeword::zeros(int state, std::int64_t count, LeanContext* contexts) {
    std::array<LeanContext*, 4> models;
    auto* next = models.data();
    for_four_zeros(state, [&](int context) { *next++ = contexts + context; });
    RangeEncoder engine = engine_;
    const auto make_room = [&] {
        if (!engine.is_full()) [[likely]]
            return;
        engine_ = engine;
        engine_.flush(bytes_);
        engine = engine_;
    };
    const std::uint64_t widths = models[0]->widths();
    if (std::all_of(models.begin(), models.end(),
                    [&](const LeanContext* each) { return each->settled_on_zero() && each->widths() == widths; })) {
        for (; count > 0; make_room()) count -= engine.encode_settled(widths, count);
    } else {
        for (; count >= 4; count -= 4, make_room())
            for (LeanContext* each : models) engine.encode_zero(*each);
        for (std::int64_t i = 0; i < count; ++i) engine.encode_zero(*models[static_cast<std::size_t>(i)]);
        make_room();
    }
    engine_ = engine;
}

void Codeword::start_band(std::vector<Mark>& marks, int dq_state) {
    engine_.restrict_range();
    marks.push_back({position(), engine_.low9(), dq_state});
}

void Codeword::append(Codeword band) {
    band.engine_.settle(band.bytes_);
    int rest = band.engine_.bits();
    std::uint64_t held = 0;  // the next bits of `band`, and how many they are
    int count = 0;
    std::size_t next = 0;
    const auto take = [&](int wanted) {
        while (count < wanted && next < band.bytes_.size()) {
            held = held << 8 | band.bytes_[next++];
            count += 8;
        }
        while (count < wanted) {
            held = held << 1 | (band.engine_.low() >> --rest & 1);
            ++count;
        }
        count -= wanted;
        const auto value = static_cast<unsigned>(held >> count);
        held &= (std::uint64_t{1} << count) - 1;
        return value;
    };
    std::int64_t left = static_cast<std::int64_t>(band.bytes_.size()) * 8 + rest - 9;
    engine_.add(take(9));
    while (left > 0) {
        const int group = static_cast<int>(std::min<std::int64_t>(left, 16));
        engine_.append(take(group), group);
        if (engine_.is_full()) engine_.flush(bytes_);
        left -= group;
    }
    engine_.continue_as(band.engine_);
}

std::vector<std::uint8_t> Codeword::finish() {
    engine_.finish(bytes_);
    return std::move(bytes_);
}

std::vector<std::uint8_t> Encoder::finish() {
    if (finished_) throw std::logic_error("the codeword is finished");
    finished_ = true;
    std::vector<std::uint8_t> payload = word_.finish();
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
