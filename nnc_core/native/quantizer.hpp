// Quantization and reconstruction of a tensor (clause 9).
#pragma once

#include <cstddef>
#include <cstdint>

#include "parameters.hpp"

namespace nnc {

// Both quantizers write rows * width multiples of the step; false (and unspecified output) where a value is not finite
// or its multiple does not fit 32 bits.
bool quantize_uniform(const float* values, std::size_t count, float step, std::int32_t* levels);
bool quantize_dependent(const float* values, const Parameters& p, float step, std::int32_t* levels);

void reconstruct(const std::int32_t* levels, std::size_t count, float step, float* values);

}  // namespace nnc
