// What the native code makes of numbers that are the same everywhere, as one number: it must not depend on the machine.
// Built for this processor and others, and run, by `make other-processors`.

#include <bit>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "decoder.hpp"
#include "encoder.hpp"
#include "quantizer.hpp"

namespace {

struct Generator {
    std::uint64_t state = 1;

    std::uint32_t next() {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return static_cast<std::uint32_t>(state >> 33);
    }
    // Near zero more often than far from it.
    float value() {
        const auto a = static_cast<std::int32_t>(next() % 2001) - 1000,
                   b = static_cast<std::int32_t>(next() % 2001) - 1000;
        return static_cast<float>(a) * static_cast<float>(b) / 250000.0f;
    }
};

struct Digest {
    std::uint64_t hash = 14695981039346656037u;

    void add(std::uint64_t number) { hash = (hash ^ number) * 1099511628211u; }
    template <class Numbers>
    void add_all(const Numbers& numbers) {
        for (const auto number : numbers) add(static_cast<std::uint64_t>(number));
    }
};

// Quantizes, codes and decodes one tensor; false where it does not come back.
bool coded(Generator& generator, Digest& digest, const nnc::Parameters& p, bool rates) {
    const auto size = static_cast<std::size_t>(p.rows * p.width);
    std::vector<float> values(size);
    for (float& value : values) value = generator.value();
    const float step = 0.01f + static_cast<float>(generator.next() % 100) / 300.0f;
    std::vector<std::int32_t> levels(size), again(size);
    nnc::RateOptions options;
    options.lambda = rates ? 0.05 : 0.0;
    if (p.dq_flag)
        nnc::quantize_dependent(values.data(), p, step, options, levels.data());
    else
        nnc::quantize_uniform(values.data(), p, step, options, levels.data());
    nnc::Choices choices;
    choices.row_skip_enabled_flag = p.has_row_skip() && generator.next() % 2;
    choices.shift_indices = nnc::shift_indices(p, choices, levels.data());
    nnc::Encoder encoder;
    encoder.iae(-38, 8);
    encoder.tensor(p, choices, levels.data());
    const std::vector<std::uint8_t> payload = encoder.finish();
    nnc::Decoder decoder(payload.data(), payload.size());
    std::vector<nnc::EntryPoint> points;
    decoder.iae(8);
    decoder.tensor(p, again.data(), points);
    decoder.finish();
    nnc::reconstruct(levels.data(), size, step, values.data());
    digest.add_all(levels);
    digest.add_all(payload);
    for (const float value : values) digest.add(std::bit_cast<std::uint32_t>(value));
    return levels == again;
}

}  // namespace

int main() {
    Generator generator;
    Digest digest;
    for (int number = 0; number < 400; ++number) {
        nnc::Parameters p;
        p.rows = 1 + generator.next() % 70;
        p.width = 1 + generator.next() % 90;
        p.general_profile_idc = number & 1;
        p.dq_flag = number >> 1 & 1;
        p.scan_order = number % 5;
        p.cabac_unary_length_minus1 = static_cast<int>(generator.next() % 12);
        if (!coded(generator, digest, p, number % 3 == 0)) {
            std::puts("what was coded does not come back");
            return 1;
        }
    }
    std::printf("%016llx\n", static_cast<unsigned long long>(digest.hash));
    return 0;
}
