// The binary arithmetic coding engine (clause 10): 9-bit range, tabulated widths, bit-wise renormalisation.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "context.hpp"

namespace nnc {

inline std::uint64_t load_big_endian(const std::uint8_t* p) {
    std::uint64_t word = 0;
    for (int i = 0; i < 8; ++i) word = word << 8 | p[i];  // compilers make this one load and a byte swap
    return word;
}

inline int leading_shift(unsigned range) { return std::countl_zero(range) - 23; }

// Encoder.
//
// `low_` holds the bits of Low that are not output yet: `have_` significant bits, of which the lowest 9 belong to the
// interval, with room for one carry above. Invariant between calls: 9 <= have_ <= 40. A bin adds at most 7 bits and a
// group of bypass bins at most 16, so low_ stays below 2^57. A carry can reach back over any number of 0xFF bytes but
// never past the first byte, because Low < 2^(doublings + 9).
class RangeEncoder {
  public:
    void encode(Context& context, unsigned bin) {
        const unsigned width = static_cast<unsigned>(context.widths >> ((range_ >> 2) & 0x38)) & 0xFF;
        const unsigned rest = range_ - width;
        const bool lps = bin != context.mps;
        low_ += lps ? rest : 0;
        range_ = lps ? width : rest;
        const int shift = leading_shift(range_);
        range_ <<= shift;
        low_ <<= shift;
        have_ += shift;
        context.update(bin);
        if (have_ > 40) flush();
    }

    // `count` bypass bins, most significant first; count <= 32.
    void bypass(std::uint32_t value, int count) {
        for (; count > 16; count -= 16) bypass_group((value >> (count - 16)) & 0xFFFF, 16);
        bypass_group(value & ((1u << count) - 1), count);
    }

    void restrict_range() { range_ = 256; }

    // Doublings so far: what a decoder has consumed beyond its first 9 bits.
    std::int64_t position() const { return static_cast<std::int64_t>(bytes_.size()) * 8 + have_ - 9; }
    unsigned low9() const { return static_cast<unsigned>(low_) & 511; }

    std::vector<std::uint8_t> finish() {
        range_ -= 2;
        low_ = (low_ + range_) | 1;
        if (low_ >> have_) carry();
        low_ &= (std::uint64_t{1} << have_) - 1;
        for (low_ <<= (8 - have_ % 8) % 8, have_ = (have_ + 7) / 8 * 8; have_ > 0; have_ -= 8)
            bytes_.push_back(static_cast<std::uint8_t>(low_ >> (have_ - 8)));
        return std::move(bytes_);
    }

  private:
    void bypass_group(std::uint32_t value, int count) {
        low_ = (low_ << count) + std::uint64_t{range_} * value;
        have_ += count;
        if (have_ > 40) flush();
    }

    void flush() {
        if (low_ >> have_) carry();
        const auto word = static_cast<std::uint32_t>(low_ >> (have_ - 32));
        const std::uint8_t out[4] = {static_cast<std::uint8_t>(word >> 24), static_cast<std::uint8_t>(word >> 16),
                                     static_cast<std::uint8_t>(word >> 8), static_cast<std::uint8_t>(word)};
        bytes_.insert(bytes_.end(), out, out + 4);
        have_ -= 32;
        low_ &= (std::uint64_t{1} << have_) - 1;
    }

    void carry() {
        std::size_t i = bytes_.size();
        while (bytes_[--i] == 0xFF) bytes_[i] = 0;
        ++bytes_[i];
    }

    std::uint64_t low_ = 0;
    unsigned range_ = 510;
    int have_ = 9;
    std::vector<std::uint8_t> bytes_;
};

// Decoder.
//
// `window_` holds the 9-bit offset in its top bits and the bits that follow below it; `spare_` of those are certainly
// there. A bin takes at most 7 bits, so a refill at spare_ < 8 keeps every bin supplied. The buffer's length is known:
// past its end the bits are zeros, and position() tells how far beyond it a damaged payload has led.
class RangeDecoder {
  public:
    RangeDecoder(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) { refill(); }

    unsigned decode(Context& context) {
        const std::uint64_t width = (context.widths >> ((range_ >> 2) & 0x38)) & 0xFF;
        const std::uint64_t rest = range_ - width;
        const std::uint64_t scaled = rest << 55;
        const bool lps = window_ >= scaled;
        window_ -= lps ? scaled : 0;
        range_ = static_cast<unsigned>(lps ? width : rest);
        const int shift = leading_shift(range_);
        range_ <<= shift;
        consume(shift);
        const unsigned bin = context.mps ^ static_cast<unsigned>(lps);
        context.update(bin);
        return bin;
    }

    // `count` bypass bins, most significant first; count <= 32.
    std::uint32_t bypass(int count) {
        std::uint32_t value = 0;
        const std::uint64_t scaled = std::uint64_t{range_} << 55;
        while (count-- > 0) {
            const bool carry = window_ >> 63;  // the offset is below 511, so one doubling needs 10 bits
            consume(1);
            const bool one = carry || window_ >= scaled;
            window_ -= one ? scaled : 0;
            value = value << 1 | static_cast<std::uint32_t>(one);
        }
        return value;
    }

    // Force the range to 256 at the start of a row of blocks; false where no conforming encoder could be.
    bool restrict_range() {
        range_ = 256;
        return offset() < 256;
    }

    bool terminate() {
        range_ -= 2;
        return offset() >= range_;
    }

    unsigned offset() const { return static_cast<unsigned>(window_ >> 55); }
    std::int64_t position() const { return static_cast<std::int64_t>(next_) * 8 - spare_ - 9; }
    std::size_t size() const { return size_; }
    const std::uint8_t* data() const { return data_; }
    bool past_end() const { return position() + 9 > static_cast<std::int64_t>(size_) * 8; }

  private:
    void consume(int bits) {
        window_ <<= bits;
        spare_ -= bits;
        if (spare_ < 8) refill();
    }

    // Bits below the certain ones may be there already; they are the same bits, so that or-ing them again is right.
    void refill() {
        std::uint64_t word = 0;
        if (next_ + 8 <= size_) {
            word = load_big_endian(data_ + next_);
        } else {
            for (std::size_t i = 0; i < 8; ++i) word = word << 8 | (next_ + i < size_ ? data_[next_ + i] : 0);
        }
        window_ |= word >> (9 + spare_);
        const int bytes = (55 - spare_) >> 3;
        next_ += static_cast<std::size_t>(bytes);
        spare_ += bytes * 8;
    }

    const std::uint8_t* data_;
    std::size_t size_;
    std::size_t next_ = 0;
    std::uint64_t window_ = 0;
    int spare_ = -9;
    unsigned range_ = 510;
};

}  // namespace nnc
