// Quantization and reconstruction of a tensor (clause 9).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "parameters.hpp"

namespace nnc {

// Multiples below this fit 32 bits even where a search looks at some that are up to three above.
inline constexpr double kRoom = 2147483644;

// After this many elements a rate-aware search teaches its contexts what is best so far.
inline constexpr int kRateBlock = 16;

// How a quantizer weighs bits against errors, and where the coder's contexts start.
struct RateOptions {
    double lambda = 0;  // squared steps per bit; 0: bits do not matter
    std::vector<std::uint8_t> shift_indices;
};

// The quantizers write rows * width multiples of the step; false (and unspecified output) where a value is not finite
// or its multiple does not fit 32 bits.
bool quantize_uniform(const float* values, std::size_t count, float step, std::int32_t* levels);
bool quantize_uniform(const float* values, const Parameters& p, float step, const RateOptions& rates,
                      std::int32_t* levels);
bool quantize_dependent(const float* values, const Parameters& p, float step, const RateOptions& rates,
                        std::int32_t* levels);

void reconstruct(const std::int32_t* levels, std::size_t count, float step, float* values);
// The same in the memory of the levels.
void reconstruct_in_place(std::int32_t* levels, std::size_t count, float step);

}  // namespace nnc
