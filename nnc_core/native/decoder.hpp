// Decoding the levels of tensors from one arithmetic codeword (clause 10).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine.hpp"
#include "parameters.hpp"
#include "scan.hpp"

namespace nnc {

class Decoder {
  public:
    Decoder(const std::uint8_t* payload, std::size_t size)
        : engine_(payload, size), starts_inside_(engine_.starts_inside()) {}

    std::int64_t iae(int bits);
    // Writes rows * width integers to `levels`. Returns what the encoder chose; notes the entry points.
    //
    // Several `threads` share the rows of blocks where `told`, the entry points of a header, is true; where it is not,
    // everything is as without them.
    Choices tensor(const Parameters& p, std::int32_t* levels, std::vector<EntryPoint>& entry_points,
                   const std::vector<EntryPoint>& told = {}, int threads = 1);
    // Checks the end of the codeword; number of payload bytes that it occupies.
    std::int64_t finish();

  private:
    Choices side_information(const Parameters& p, const ContextLayout& layout, Contexts& contexts,
                             std::vector<std::uint8_t>& row_skip_list);
    void sequential(const Parameters& p, const ContextLayout& layout, Contexts& contexts, const Choices& choices,
                    const std::vector<std::uint8_t>& row_skip_list, std::int32_t* levels,
                    std::vector<EntryPoint>& entry_points);
    bool parallel(const Parameters& p, const ContextLayout& layout, const Contexts& contexts, const Choices& choices,
                  const std::vector<std::uint8_t>& row_skip_list, std::int32_t* levels,
                  const std::vector<EntryPoint>& told, int threads);
    void check_position() const;
    void check_start() const;
    void require_unfinished() const;

    RangeDecoder engine_;
    bool starts_inside_;
    bool finished_ = false;  // the terminating bin leaves a range with which no more bins can be read
};

}  // namespace nnc
