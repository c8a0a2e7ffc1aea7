// The kernels of the trellis for machines with AVX2.
#include "quad.hpp"
#include "trellis.hpp"

#ifdef NNC_HAS_AVX2
#include <immintrin.h>

// Only what follows may use these instructions; the headers above are compiled as everywhere. Fused multiply-add is
// not among them, so that results do not depend on the machine.
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif

#include "trellis_kernels.hpp"

namespace nnc {

namespace {

struct Avx2Quad {
    struct Truth {
        __m256d v;
        unsigned bits() const { return static_cast<unsigned>(_mm256_movemask_pd(v)); }
    };

    __m256d v;

    static Avx2Quad all(double x) { return {_mm256_set1_pd(x)}; }
    static Avx2Quad load(const double* p) { return {_mm256_loadu_pd(p)}; }
    void store(double* p) const { _mm256_storeu_pd(p, v); }
    Avx2Quad operator+(Avx2Quad b) const { return {_mm256_add_pd(v, b.v)}; }
    Avx2Quad smaller_or(Avx2Quad b) const { return {_mm256_min_pd(v, b.v)}; }
    Truth operator<(Avx2Quad b) const { return {_mm256_cmp_pd(v, b.v, _CMP_LT_OQ)}; }
    static Truth less_late(Avx2Quad a, Avx2Quad b) { return {_mm256_blend_pd((a < b).v, less_or_equal(a, b), 12)}; }
    static Truth less_early(Avx2Quad a, Avx2Quad b) { return {_mm256_blend_pd((a < b).v, less_or_equal(a, b), 3)}; }
    static Avx2Quad select(Truth t, Avx2Quad a, Avx2Quad b) { return {_mm256_blendv_pd(b.v, a.v, t.v)}; }
    Avx2Quad halves_exchanged() const { return {_mm256_permute4x64_pd(v, 0x4E)}; }

  private:
    static __m256d less_or_equal(Avx2Quad a, Avx2Quad b) { return _mm256_cmp_pd(a.v, b.v, _CMP_LE_OQ); }
};

Avx2Quad even_ones(Avx2Quad a, Avx2Quad b) { return {_mm256_permute4x64_pd(_mm256_unpacklo_pd(a.v, b.v), 0xD8)}; }
Avx2Quad odd_ones_backwards(Avx2Quad a, Avx2Quad b) {
    return {_mm256_permute4x64_pd(_mm256_unpackhi_pd(a.v, b.v), 0x27)};
}

}  // namespace

const Kernels kAvx2Kernels = TrellisKernels<Avx2Quad>::table;

}  // namespace nnc

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
