// The binary arithmetic coding engine (clause 10): 9-bit range, tabulated widths, bit-wise renormalisation.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "context.hpp"

// For the parts of an inner loop, which not every compiler copies into it on its own: then the engine's registers lie
// in memory. And for the loop itself, which is compiled apart from what calls it.
#ifdef _MSC_VER
#define NNC_INLINED __forceinline
#define NNC_INLINED_BODY
#define NNC_APART __declspec(noinline)
#define NNC_BYTES_REVERSED _byteswap_uint64
#else
#define NNC_INLINED [[gnu::always_inline]] inline
#define NNC_INLINED_BODY __attribute__((always_inline))
#define NNC_APART [[gnu::noinline]]
#define NNC_BYTES_REVERSED __builtin_bswap64
#endif

namespace nnc {

inline std::uint64_t load_big_endian(const std::uint8_t* p) {
    std::uint64_t word;
    std::memcpy(&word, p, sizeof word);
    return std::endian::native == std::endian::big ? word : NNC_BYTES_REVERSED(word);
}

// How far a range below 256 has to be shifted to reach 256.
inline constexpr auto kLeadingShift = [] {
    std::array<std::uint8_t, 512> shift{};
    for (unsigned range = 1; range < 512; ++range)
        shift[range] = static_cast<std::uint8_t>(std::countl_zero(range) - 23);
    return shift;
}();

// kReciprocal[d] * n >> 20 is n / d, for 2 <= d < 256 and n < 512.
inline constexpr auto kReciprocal = [] {
    std::array<std::uint32_t, 256> reciprocal{};
    for (unsigned width = 2; width < 256; ++width) reciprocal[width] = (1u << 20) / width + 1;
    return reciprocal;
}();

// kInverse[range - 256] * n >> kInverseBits is n / range, for n < range << 16.
inline constexpr int kInverseBits = 38;
inline constexpr auto kInverse = [] {
    std::array<std::uint64_t, 256> inverse{};
    for (unsigned range = 256; range < 512; ++range)
        inverse[range - 256] = (std::uint64_t{1} << kInverseBits) / range + 1;
    return inverse;
}();

// `a` where the mask is all ones, `b` where it is zero.
inline unsigned select(unsigned mask, unsigned a, unsigned b) { return b ^ ((a ^ b) & mask); }

// `a` if `which` is 1, `b` if it is 0; neither is expected, so that compilers do not branch.
inline unsigned either(unsigned which, unsigned a, unsigned b) {
#ifdef __GNUC__
    return __builtin_expect_with_probability(which != 0, 1, 0.5) ? a : b;
#else
    return select(0u - which, a, b);
#endif
}

// Encoder.
//
// `low_` holds the bits of Low that are not output yet: `have_` significant bits, of which the lowest 9 belong to the
// interval, with room for one carry above. Invariant between calls: 9 <= have_ <= 40. A bin adds at most 7 bits and a
// group of bypass bins at most 16, so low_ stays below 2^57. A carry can reach back over any number of 0xFF bytes but
// never past the first byte, because Low < 2^(doublings + 9).
class RangeEncoder {
  public:
    RangeEncoder() = default;
    // One whose codeword begins with a row of blocks.
    static RangeEncoder at_entry_point() {
        RangeEncoder engine;
        engine.restrict_range();
        return engine;
    }

    void encode(LeanContext& context, unsigned bin) {
        const unsigned s0 = context.s0, s1 = context.s1, q = 16 * s0 + s1;
        const unsigned width = static_cast<unsigned>(kWidths[q >> 7] >> ((range_ >> 2) & 0x38)) & 0xFF;
        const unsigned rest = range_ - width;
        // Which symbol comes is hard to predict: no branches.
        const unsigned lps = bin ^ (q >> 12);
        const unsigned range = either(lps, width, rest);
        const int shift = kLeadingShift[range];
        low_ = (low_ + (rest & (0u - lps))) << shift;
        range_ = range << shift;
        have_ += shift;
        context.s0 = context.next->next0[s0][bin];
        context.s1 = context.next->next1[s1][bin];
    }

    // A bin of 0 that is mostly expected: then Low stays, and the range mostly is large enough.
    NNC_INLINED void encode_zero(LeanContext& context) {
        if (!context.expects_zero()) [[unlikely]]
            return encode(context, 0);
        range_ -= static_cast<unsigned>(context.widths() >> ((range_ >> 2) & 0x38)) & 0xFF;
        if (range_ < 256) [[unlikely]]
            shift();
        context.s0 = context.next->next0[context.s0][0];
        context.s1 = context.next->next1[context.s1][0];
    }

    // Some zeros, at most so many, of contexts that expect them, all have these widths and stay as they are.
    std::int64_t encode_settled(std::uint64_t widths, std::int64_t limit) {
        const unsigned width = static_cast<unsigned>(widths >> ((range_ >> 2) & 0x38)) & 0xFF;
        const auto count = std::min<std::int64_t>(((range_ & 31) + width) * kReciprocal[width] >> 20, limit);
        range_ -= static_cast<unsigned>(count) * width;
        if (range_ < 256) shift();
        return count;
    }

    // `count` bypass bins, most significant first; count <= 16.
    void bypass(std::uint32_t value, int count) {
        low_ = (low_ << count) + std::uint64_t{range_} * value;
        have_ += count;
    }

    void restrict_range() { range_ = 256; }

    // To be called after every bin or group of bypass bins.
    bool is_full() const { return have_ > 40; }
    void flush(std::vector<std::uint8_t>& bytes) {
        if (low_ >> have_) carry(bytes);
        have_ -= 32;
        const auto word = static_cast<std::uint32_t>(low_ >> have_);
        for (int shift = 24; shift >= 0; shift -= 8) bytes.push_back(static_cast<std::uint8_t>(word >> shift));
        low_ &= (std::uint64_t{1} << have_) - 1;
    }

    // What a codeword that begins here adds to this one: its first nine bits, and more of them, at most 16 at a time.
    void add(unsigned first) { low_ += first; }
    void append(unsigned value, int count) {
        low_ = (low_ << count) + value;
        have_ += count;
    }
    void continue_as(const RangeEncoder& other) { range_ = other.range_; }
    void settle(std::vector<std::uint8_t>& bytes) {
        if (low_ >> have_) carry(bytes);
        low_ &= (std::uint64_t{1} << have_) - 1;
    }
    // The bits of Low that are not output yet, and their number.
    std::uint64_t low() const { return low_; }
    int bits() const { return have_; }

    // Doublings since the bytes that are output already.
    int pending() const { return have_ - 9; }
    unsigned low9() const { return static_cast<unsigned>(low_) & 511; }

    void finish(std::vector<std::uint8_t>& bytes) {
        range_ -= 2;
        low_ = (low_ + range_) | 1;
        if (low_ >> have_) carry(bytes);
        low_ &= (std::uint64_t{1} << have_) - 1;
        for (low_ <<= (8 - have_ % 8) % 8, have_ = (have_ + 7) / 8 * 8; have_ > 0; have_ -= 8)
            bytes.push_back(static_cast<std::uint8_t>(low_ >> (have_ - 8)));
    }

  private:
    void shift() {
        range_ <<= 1;
        low_ <<= 1;
        ++have_;
    }

    static void carry(std::vector<std::uint8_t>& bytes) {
        std::size_t i = bytes.size();
        while (bytes[--i] == 0xFF) bytes[i] = 0;
        ++bytes[i];
    }

    std::uint64_t low_ = 0;
    unsigned range_ = 510;
    int have_ = 9;
};

// The bytes of a payload, up to the next one that a decoder takes; beyond their end there are zeros.
struct ByteSource {
    const std::uint8_t* data;
    std::size_t size;
    std::size_t next = 0;

    NNC_INLINED std::uint64_t peek() const { return next + 8 <= size ? load_big_endian(data + next) : peek_at_end(); }

  private:
    NNC_APART std::uint64_t peek_at_end() const {
        std::uint64_t word = 0;
        for (std::size_t i = next; i < next + 8; ++i) word = word << 8 | (i < size ? data[i] : 0);
        return word;
    }
};

// Decoder.
//
// `window_` holds the 9-bit offset in its top bits and the bits that follow below it; `spare_` of those are certainly
// there. A bin takes at most 7 bits, so a refill at spare_ < 8 keeps every bin supplied. The buffer's length is known:
// past its end the bits are zeros, and position() tells how far beyond it a damaged payload has led.
//
// `Source` is a ByteSource, or a reference to that of another decoder: what is left then fits the processor's
// registers.
template <class Source>
class BasicRangeDecoder {
  public:
    BasicRangeDecoder(const std::uint8_t* data, std::size_t size) : source_{data, size} { refill(); }

    // One at the start of a row of blocks, where so many bits have been taken and the register holds this offset.
    BasicRangeDecoder(const std::uint8_t* data, std::size_t size, std::int64_t position, unsigned offset)
        : source_{data, size, static_cast<std::size_t>(position + 9 + 7) / 8}, range_(256) {
        window_ = std::uint64_t{offset} << 55;
        spare_ = static_cast<int>(static_cast<std::int64_t>(source_.next) * 8 - (position + 9));
        if (spare_ > 0 && source_.next <= size)
            window_ |= std::uint64_t{data[source_.next - 1] & ((1u << spare_) - 1)} << (55 - spare_);
        refill();
    }

    // One that takes its bytes from the same place as `other`, which has to `follow` when it is to go on.
    template <class Other>
    explicit BasicRangeDecoder(BasicRangeDecoder<Other>& other) : source_(other.source_) {
        follow(other);
    }
    template <class Other>
    void follow(const BasicRangeDecoder<Other>& other) {
        window_ = other.window_;
        spare_ = other.spare_;
        range_ = other.range_;
    }

    // A bin that is mostly predicted well: a branch does not have to wait for the offset.
    NNC_INLINED unsigned decode(Context& context) {
        const unsigned width = width_of(context.widths);
        const unsigned rest = range_ - width;
        const std::uint64_t scaled = std::uint64_t{rest} << 55;
        unsigned bin = context.mps;
        if (window_ < scaled) [[likely]] {
            narrow(rest, (rest >> 8) ^ 1);
        } else {
            window_ -= scaled;
            narrow(width, kLeadingShift[width]);
            bin ^= 1;
        }
        context.update(bin);
        return bin;
    }

    // A bin that may as well be 0 as 1: masks, not branches.
    NNC_INLINED unsigned decode_even(Context& context) {
        const unsigned width = width_of(context.widths);
        const unsigned rest = range_ - width;
        const std::uint64_t scaled = std::uint64_t{rest} << 55;
        const unsigned lps = 0u - static_cast<unsigned>(window_ >= scaled);
        window_ -= scaled & (0 - std::uint64_t{lps & 1});
        narrow(select(lps, width, rest), select(lps, kLeadingShift[width], (rest >> 8) ^ 1));
        const unsigned bin = context.mps ^ (lps & 1);
        context.update(bin);
        return bin;
    }

    // As many bins in a row as are the most probable symbol, up to `limit`, or a few less; for contexts that all have
    // these widths and stay as they are. Within a row of the table each bin takes the same part of the range.
    std::int64_t decode_settled(std::uint64_t widths, std::int64_t limit) {
        std::int64_t done = 0;
        while (done < limit) {
            const unsigned width = width_of(widths);
            const unsigned room = std::min(range_ - 1 - offset(), (range_ & 31) + width);
            const std::int64_t count = std::min<std::int64_t>(room * kReciprocal[width] >> 20, limit - done);
            if (count == 0) break;
            const unsigned rest = range_ - static_cast<unsigned>(count) * width;
            narrow(rest, (rest >> 8) ^ 1);
            done += count;
        }
        return done;
    }

    // The zeros that come before a 1, up to `limit`, from models that take turns and all expect a 0. What a zero takes
    // of the range is small, so that its row of the table and the offset mostly stay, and nothing has to be shifted.
    template <int kModels>
    std::int64_t decode_zeros(const std::array<Context*, kModels>& models, std::int64_t limit) {
        unsigned range = range_, first = offset();
        std::int64_t done = 0;
        const auto step = [&](Context& model) NNC_INLINED_BODY {
            const unsigned rest = range - (static_cast<unsigned>(model.widths >> ((range >> 2) & 0x38)) & 0xFF);
            if (rest <= first) [[unlikely]]
                return false;
            range = rest;
            if (rest < 256) [[unlikely]] {
                renormalize(rest);
                range = range_;
                first = offset();
            }
            model.estimators.s0 = model.next->next0[model.estimators.s0][0];
            model.estimators.s1 = model.next->next1[model.estimators.s1][0];
            model.widths = kWidths[model.estimators.combined() >> 7];
            ++done;
            return true;
        };
        if constexpr (kModels == 1) {
            Context own = *models[0];
            while (done < limit && step(own)) {
            }
            *models[0] = own;
        } else if constexpr (kModels == 2) {
            Context &a = *models[0], &b = *models[1];
            while (done + 2 <= limit && step(a) && step(b)) {
            }
        } else {
            Context &a = *models[0], &b = *models[1], &c = *models[2], &d = *models[3];
            while (done + 4 <= limit && step(a) && step(b) && step(c) && step(d)) {
            }
        }
        range_ = range;
        return done;
    }

    // `count` bypass bins, most significant first; count <= 32.
    std::uint32_t bypass(int count) {
        if (count <= kGroup) return bypass_group(count);
        const std::uint32_t first = bypass_group(count - kGroup);
        return first << kGroup | bypass_group(kGroup);
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

    // Whether the offset lies in the range, as it does in everything that an encoder writes; the bins rely on it.
    bool starts_inside() const { return offset() < range_; }

    unsigned offset() const { return static_cast<unsigned>(window_ >> 55); }
    std::int64_t position() const { return static_cast<std::int64_t>(source_.next) * 8 - spare_ - 9; }
    std::size_t size() const { return source_.size; }
    const std::uint8_t* data() const { return source_.data; }
    bool past_end() const { return position() + 9 > static_cast<std::int64_t>(size()) * 8; }

  private:
    template <class Other>
    friend class BasicRangeDecoder;

    static constexpr int kGroup = 16;

    // All at once: how often the range, halved with each bin, goes into the offset.
    std::uint32_t bypass_group(int count) {
        if (spare_ < count) refill();
        const int below = 55 - count;
        const std::uint64_t value = (window_ >> below) * kInverse[range_ - 256] >> kInverseBits;
        window_ -= value * range_ << below;
        consume(count);
        return static_cast<std::uint32_t>(value);
    }

    NNC_INLINED unsigned width_of(std::uint64_t widths) const {
        return static_cast<unsigned>(widths >> ((range_ >> 2) & 0x38)) & 0xFF;
    }

    NNC_INLINED void narrow(unsigned range, unsigned shift) {
        range_ = range << shift;
        consume(static_cast<int>(shift));
    }

    NNC_APART void renormalize(unsigned range) { narrow(range, 1); }

    NNC_INLINED void consume(int bits) {
        window_ <<= bits;
        spare_ -= bits;
        if (spare_ < 8) refill();
    }

    // Bits below the certain ones may be there already; they are the same bits, so that or-ing them again is right.
    NNC_INLINED void refill() {
        window_ |= source_.peek() >> (9 + spare_);
        const int bytes = (55 - spare_) >> 3;
        source_.next += static_cast<std::size_t>(bytes);
        spare_ += bytes * 8;
    }

    Source source_;
    std::uint64_t window_ = 0;
    int spare_ = -9;
    unsigned range_ = 510;
};

using RangeDecoder = BasicRangeDecoder<ByteSource>;
using SharingRangeDecoder = BasicRangeDecoder<ByteSource&>;

}  // namespace nnc
