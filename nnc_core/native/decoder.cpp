#include "decoder.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "level_decoder.hpp"
#include "threads.hpp"

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

Choices Decoder::tensor(const Parameters& p, std::int32_t* levels, std::vector<EntryPoint>& entry_points,
                        const std::vector<EntryPoint>& told, int threads) {
    require_unfinished();
    check_start();
    const ContextLayout layout(p.greater_flags());
    Contexts contexts(layout);
    std::vector<std::uint8_t> row_skip_list;
    Choices choices = side_information(p, layout, contexts, row_skip_list);
    const bool shared = threads > 1 && !told.empty() && static_cast<std::int64_t>(told.size()) == count_bands(p) - 1;
    if (shared && parallel(p, layout, contexts, choices, row_skip_list, levels, told, threads))
        entry_points = told;
    else
        sequential(p, layout, contexts, choices, row_skip_list, levels, entry_points);
    return choices;
}

namespace {

// Decodes what a row of blocks has left of a tensor.
class SegmentDecoder {
  public:
    SegmentDecoder(const Parameters& p, LevelDecoder& decoder, const std::vector<std::uint8_t>& row_skip_list,
                   std::int32_t* levels)
        : p_(p), decoder_(decoder), row_skip_list_(row_skip_list), levels_(levels) {}

    // Calls `check()` now and then.
    template <class Check>
    void decode(RangeDecoder& engine, const Segment& segment, Check&& check) {
        if (is_left_out(segment)) {
            std::fill_n(levels_ + segment.first, segment.length, 0);
            decoder_.skip(segment.length);
            return;
        }
        for (std::int64_t done = 0; done < segment.length; done += kCheckedRun) {
            const std::int64_t count = std::min(kCheckedRun, segment.length - done);
            decoder_.decode(engine, segment.first + done, count, levels_);
            check();
        }
    }

  private:
    bool is_left_out(const Segment& segment) const {
        return p_.codebook() == 1 || (!row_skip_list_.empty() && row_skip_list_[static_cast<std::size_t>(segment.row)]);
    }

    const Parameters& p_;
    LevelDecoder& decoder_;
    const std::vector<std::uint8_t>& row_skip_list_;
    std::int32_t* levels_;
};

}  // namespace

void Decoder::sequential(const Parameters& p, const ContextLayout& layout, Contexts& contexts, const Choices& choices,
                         const std::vector<std::uint8_t>& row_skip_list, std::int32_t* levels,
                         std::vector<EntryPoint>& entry_points) {
    LevelDecoder decoder(p, layout, choices.hist_dep_sig_prob_enabled_flag, contexts.data());
    SegmentDecoder segments(p, decoder, row_skip_list, levels);
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
        [&](const Segment& segment) { segments.decode(engine_, segment, [&] { check_position(); }); });
}

// Whether that is possible: all rows of blocks end where the next is said to start.
bool Decoder::parallel(const Parameters& p, const ContextLayout& layout, const Contexts& contexts,
                       const Choices& choices, const std::vector<std::uint8_t>& row_skip_list, std::int32_t* levels,
                       const std::vector<EntryPoint>& told, int threads) {
    RangeDecoder first = engine_;
    if (first.past_end() || !first.restrict_range()) return false;
    std::vector<EntryPoint> starts{{first.position(), static_cast<int>(first.offset()), 0}};
    const std::int64_t bits = static_cast<std::int64_t>(first.size()) * 8;
    for (const EntryPoint& point : told) {
        if (point.bit_offset < 0 || point.bit_offset > bits || point.cabac_offset < 0 || point.cabac_offset > 255 ||
            point.dq_state < 0 || point.dq_state > (p.dq_flag ? 7 : 0))
            return false;
        starts.push_back({starts.back().bit_offset + point.bit_offset, point.cabac_offset, point.dq_state});
        if (starts.back().bit_offset + 9 > bits) return false;
    }
    const auto bands = static_cast<std::int64_t>(starts.size());
    RangeDecoder last = first;
    const auto decode = [&](std::int64_t band) {
        const EntryPoint& start = starts[static_cast<std::size_t>(band)];
        RangeDecoder engine(first.data(), first.size(), start.bit_offset, static_cast<unsigned>(start.cabac_offset));
        Contexts own = contexts;
        own.restart();
        LevelDecoder decoder(p, layout, choices.hist_dep_sig_prob_enabled_flag, own.data());
        decoder.restart(start.dq_state);
        SegmentDecoder segments(p, decoder, row_skip_list, levels);
        bool inside = true;
        traverse_band(p, band, [&](const Segment& segment) {
            if (inside) segments.decode(engine, segment, [&] { inside = inside && !engine.past_end(); });
        });
        if (!inside) return false;
        if (band + 1 == bands) {
            last = engine;
            return true;
        }
        const EntryPoint& next = starts[static_cast<std::size_t>(band + 1)];
        return engine.restrict_range() && engine.position() == next.bit_offset &&
               static_cast<int>(engine.offset()) == next.cabac_offset && decoder.state() == next.dq_state;
    };
    if (!in_threads(bands, threads, decode)) return false;
    engine_ = last;
    return true;
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
