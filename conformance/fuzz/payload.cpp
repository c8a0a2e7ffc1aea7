// Coverage-guided fuzzing of the arithmetic coder: any bytes are decoded; what decodes is coded again, and must decode
// to the same levels. Built and run by `make fuzz-native`, with AddressSanitizer and UndefinedBehaviorSanitizer.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "decoder.hpp"
#include "encoder.hpp"

namespace {

constexpr std::size_t kHeader = 8;

// The first bytes choose what headers say; the rest is the payload.
struct Case {
    nnc::Parameters parameters;
    std::vector<std::int32_t> base;
    std::vector<std::uint8_t> history;

    explicit Case(const std::uint8_t* data) {
        nnc::Parameters& p = parameters;
        p.rows = 1 + data[0] % 24;
        p.width = 1 + data[1] % 40;
        p.general_profile_idc = data[2] & 1;
        p.dq_flag = data[2] >> 1 & 1;
        p.parent_node_id_present_flag = data[2] >> 2 & 1;
        p.scan_order = data[3] % 5;
        p.cabac_unary_length_minus1 = data[4];
        if (data[2] >> 3 & 1) {
            p.codebook_size = 1 + data[5] % 40;
            p.codebook_zero_offset = data[6] % p.codebook_size;
            p.dq_flag = false;
        }
        const std::size_t size = static_cast<std::size_t>(p.rows * p.width);
        if (p.general_profile_idc == 1 && (data[2] >> 4 & 1)) {
            for (std::size_t i = 0; i < size; ++i)
                base.push_back((data[7] >> (i % 8) & 1) * static_cast<int>(i % 5) - 2);
            p.base = base.data();
        }
        if (p.parent_node_id_present_flag) {
            for (std::size_t i = 0; i < size; ++i) history.push_back(data[7] >> (i % 7) & 1);
            p.history = history.data();
        }
    }
};

[[noreturn]] void fail(const char* what) {
    std::fprintf(stderr, "finding: %s\n", what);
    std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < kHeader) return 0;
    const Case each(data);
    std::vector<std::int32_t> levels(static_cast<std::size_t>(each.parameters.rows * each.parameters.width));
    std::vector<nnc::EntryPoint> points;
    nnc::Choices choices;
    try {
        nnc::Decoder decoder(data + kHeader, size - kHeader);
        decoder.iae(8);
        choices = decoder.tensor(each.parameters, levels.data(), points);
        decoder.finish();
    } catch (const nnc::CodewordError&) {
        return 0;
    }
    nnc::Encoder encoder;
    encoder.iae(0, 8);
    encoder.tensor(each.parameters, choices, levels.data());
    const std::vector<std::uint8_t> payload = encoder.finish();
    std::vector<std::int32_t> again(levels.size());
    points.clear();
    nnc::Decoder decoder(payload.data(), payload.size());
    decoder.iae(8);
    decoder.tensor(each.parameters, again.data(), points);
    if (decoder.finish() != static_cast<std::int64_t>(payload.size())) fail("bytes follow the codeword");
    if (again != levels) fail("what was decoded does not come back");
    return 0;
}
