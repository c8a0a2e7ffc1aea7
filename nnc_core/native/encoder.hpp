// Encoding the levels of tensors into one arithmetic codeword (clause 10).
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "binarizer.hpp"
#include "engine.hpp"

namespace nnc {

// What is known at the start of a row of blocks before the payload is complete.
struct Mark {
    std::int64_t position;
    unsigned low9;
    int dq_state;
};

// A codeword as far as it is written.
class Codeword {
  public:
    Codeword() = default;
    explicit Codeword(const RangeEncoder& engine) : engine_(engine) {}

    void encode(LeanContext& context, unsigned bin);
    void bypass(std::uint32_t value, int count);
    void tokens(const Token* begin, const Token* end, LeanContext* contexts);
    void zeros(int state, std::int64_t count, LeanContext* contexts);
    void start_band(std::vector<Mark>& marks, int dq_state);
    // As if what `band` has, from the start of a row of blocks on, had been coded here.
    void append(Codeword band);
    std::vector<std::uint8_t> finish();

  private:
    std::int64_t position() const { return static_cast<std::int64_t>(bytes_.size()) * 8 + engine_.pending(); }

    RangeEncoder engine_;
    std::vector<std::uint8_t> bytes_;
};

class Encoder {
  public:
    void iae(std::int64_t value, int bits);
    // Several `threads` share the rows of blocks; the codeword does not depend on them.
    void tensor(const Parameters& p, const Choices& choices, const std::int32_t* levels, int threads = 1);
    std::vector<std::uint8_t> finish();

    // One list for each tensor; complete after finish().
    const std::vector<std::vector<EntryPoint>>& entry_points() const { return entry_points_; }

  private:
    void side_information(const Parameters& p, const Choices& choices, const Binarizer& binarizer,
                          LeanContexts& contexts);
    bool parallel(const Parameters& p, const Binarizer& binarizer, const LeanContexts& contexts, int threads);

    Codeword word_;
    std::vector<std::vector<Mark>> marks_;
    std::vector<std::vector<EntryPoint>> entry_points_;
    bool finished_ = false;
};

// The shift index of every indexed context that makes the tensor's bins cheapest (parameter optimisation).
// Several `threads` share the rows of blocks; what they find does not depend on them.
// Of contexts that have many bins a sample is followed, unless it is to be all of them.
std::vector<std::uint8_t> shift_indices(const Parameters& p, const Choices& choices, const std::int32_t* levels,
                                        int threads = 1, bool sampled = true);

// The same, and whether a tensor can be shortest with them, or without any, by an estimate: one or both.
struct ShiftCandidates {
    std::vector<std::uint8_t> indices;
    bool with, without;
};
ShiftCandidates shift_candidates(const Parameters& p, const Choices& choices, const std::int32_t* levels,
                                 int threads = 1);

// Cost of coding `bin` in the combined state q, in units of 2^-15 bit: [bin][(q + 4096) >> 3].
using Rates = std::array<std::array<std::uint32_t, 1024>, 2>;
extern const Rates kRates;

}  // namespace nnc
