// Quantization that minimises the error of a layer's output instead of that of its weights.
#pragma once

#include <cstdint>

#include "quantizer.hpp"

namespace nnc {

// What is known of the inputs of a matrix with `width` columns, for each of the equal groups that its rows form.
struct Calibration {
    const float* factor;  // width x width, upper triangular: U with U^T * U = the inverse of the inputs' covariance
    const double* importance;  // of each column: what a squared error there counts
    std::int64_t groups = 1;
};

// Like the other quantizers, in row-major order. What a column leaves in error, the columns to the right of it make up
// for as far as they can: their values are corrected before they are quantized. False also where corrections become
// too large.
bool quantize_calibrated(const float* values, const Parameters& p, float step, const Calibration& calibration,
                         const RateOptions& rates, std::int32_t* levels);

// The same for a matrix whose rows are multiplied by inputs, as in x * W: the rows below make up for a row's errors.
bool quantize_calibrated_columns(const float* values, const Parameters& p, float step, const Calibration& calibration,
                                 const RateOptions& rates, std::int32_t* levels);

}  // namespace nnc
