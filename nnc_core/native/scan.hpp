// The order in which the elements of a tensor are coded (clause 4.12).
#pragma once

#include <algorithm>
#include <cstdint>

#include "parameters.hpp"

namespace nnc {

// A run of elements that lie side by side in memory and in one row.
struct Segment {
    std::int64_t row;
    std::int64_t first;
    std::int64_t length;
};

// Number of rows of blocks, each of which can be entered by a decoder; 1 in row-major order.
inline std::int64_t count_bands(const Parameters& p) {
    const std::int64_t side = p.block_size();
    return side ? (p.rows + side - 1) / side : 1;
}

// Calls `segment(Segment)` for the elements of one row of blocks in coding order.
template <class Visit>
void traverse_band(const Parameters& p, std::int64_t band, Visit&& segment) {
    const std::int64_t side = p.block_size();
    const std::int64_t high = side ? side : p.rows;
    const std::int64_t wide = side ? side : p.width;
    const std::int64_t top = band * high, bottom = std::min(top + high, p.rows);
    for (std::int64_t left = 0; left < p.width; left += wide) {
        const std::int64_t length = std::min(wide, p.width - left);
        for (std::int64_t row = top; row < bottom; ++row) segment(Segment{row, row * p.width + left, length});
    }
}

// Calls `band(index)` at the start of every row of blocks and `segment(Segment)` for all elements in coding order.
template <class Band, class Visit>
void traverse(const Parameters& p, Band&& band, Visit&& segment) {
    if (p.rows == 0 || p.width == 0) return;
    for (std::int64_t i = 0; i < count_bands(p); ++i) {
        band(i);
        traverse_band(p, i, segment);
    }
}

// The same segments from the last to the first.
template <class Visit>
void traverse_back(const Parameters& p, Visit&& segment) {
    if (p.rows == 0 || p.width == 0) return;
    const std::int64_t side = p.block_size();
    const std::int64_t high = side ? side : p.rows;
    const std::int64_t wide = side ? side : p.width;
    for (std::int64_t top = (p.rows - 1) / high * high; top >= 0; top -= high) {
        for (std::int64_t left = (p.width - 1) / wide * wide; left >= 0; left -= wide) {
            const std::int64_t length = std::min(wide, p.width - left);
            for (std::int64_t row = std::min(top + high, p.rows); row-- > top;)
                segment(Segment{row, row * p.width + left, length});
        }
    }
}

// State of dependent quantization after `count` zeros; the walk over zeros has cycles of length 1, 2 and 4.
inline int after_zeros(int state, std::int64_t count) {
    for (std::int64_t i = 0; i < (count & 3); ++i) state = kNextState[state][0];
    return state;
}

}  // namespace nnc
