#include "decoder.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "level_decoder.hpp"

namespace nnc {

namespace {

// A damaged payload is noticed after this many elements at the latest.
constexpr std::int64_t kCheckedRun = 1 << 14;

}  // namespace

std::int64_t Decoder::iae(int bits) {
    require_unfinished();
    check_start();
    if (bits < 0 || bits > 32) throw std::invalid_argument("iae has 0 to 32 bits");
    const std::int64_t value = engine_.bypass(bits);
    return bits > 0 && value >> (bits - 1) ? value - (std::int64_t{1} << bits) : value;
}

void Decoder::require_unfinished() const {
    if (finished_) throw std::logic_error("the codeword is finished");
}

void Decoder::check_start() const {
    if (!starts_inside_) throw CodewordError("the offset at the start exceeds the range");
}

void Decoder::check_position() const {
    if (engine_.past_end()) throw TruncatedCodewordError("the payload ends inside its codeword");
}

Choices Decoder::side_information(const Parameters& p, const ContextLayout& layout, Contexts& contexts,
                                  std::vector<std::uint8_t>& row_skip_list) {
    const auto at = [](int i) { return static_cast<std::size_t>(i); };
    Choices choices;
    if (p.has_history_flag()) choices.hist_dep_sig_prob_enabled_flag = engine_.bypass(1);
    if (p.has_row_skip()) choices.row_skip_enabled_flag = engine_.bypass(1);
    if (choices.row_skip_enabled_flag) {
        for (std::int64_t row = 0; row < p.rows; ++row) {
            row_skip_list.push_back(static_cast<std::uint8_t>(engine_.decode(contexts[at(layout.row_skip)])));
            if (row % kCheckedRun == 0) check_position();
        }
    }
    choices.shift_indices.resize(at(layout.indexed()));
    for_each_signalled_context(p, layout, choices.hist_dep_sig_prob_enabled_flag, [&](int context) {
        const unsigned present = engine_.decode(contexts[at(layout.shift)]);
        const unsigned index = present ? 1 + engine_.bypass(3) : 0;
        choices.shift_indices[at(context)] = static_cast<std::uint8_t>(index);
        contexts[at(context)].reset(static_cast<int>(index));
    });
    check_position();
    return choices;
}

Choices Decoder::tensor(const Parameters& p, std::int32_t* levels, std::vector<EntryPoint>& entry_points) {
    require_unfinished();
    check_start();
    const ContextLayout layout(p.greater_flags());
    Contexts contexts(layout);
    std::vector<std::uint8_t> row_skip_list;
    Choices choices = side_information(p, layout, contexts, row_skip_list);
    const auto is_left_out = [&](const Segment& segment) {
        return p.codebook() == 1 || (!row_skip_list.empty() && row_skip_list[static_cast<std::size_t>(segment.row)]);
    };
    LevelDecoder decoder(p, layout, choices.hist_dep_sig_prob_enabled_flag, contexts.data());
    const bool banded = count_bands(p) > 1;
    std::int64_t band_start = 0;
    traverse(
        p,
        [&](std::int64_t band) {
            if (!banded) return;
            check_position();
            if (!engine_.restrict_range()) throw CodewordError("the offset at an entry point exceeds the range");
            contexts.restart();
            decoder.restart();
            const std::int64_t position = engine_.position();
            if (band > 0)
                entry_points.push_back({position - band_start, static_cast<int>(engine_.offset()), decoder.state()});
            band_start = position;
        },
        [&](const Segment& segment) {
            if (is_left_out(segment)) {
                std::fill_n(levels + segment.first, segment.length, 0);
                decoder.skip(segment.length);
                return;
            }
            for (std::int64_t done = 0; done < segment.length; done += kCheckedRun) {
                const std::int64_t count = std::min(kCheckedRun, segment.length - done);
                decoder.decode(engine_, segment.first + done, count, levels);
                check_position();
            }
        });
    return choices;
}

std::int64_t Decoder::finish() {
    require_unfinished();
    finished_ = true;
    check_start();
    check_position();
    if (!engine_.terminate()) throw CodewordError("the terminating bin is missing");
    const std::int64_t last = engine_.position() + 8;  // the stop bit, the last that the offset register holds
    const std::int64_t bytes = last / 8 + 1;
    const unsigned end = engine_.data()[bytes - 1];
    const unsigned stop = 0x80u >> (last % 8);
    if ((end & (2 * stop - 1)) != stop) throw CodewordError("the stop bit or the zeros after it are wrong");
    return bytes;
}

}  // namespace nnc
