// The kernels of the trellis for any machine, and which ones are used.
#include <atomic>

#include "quad.hpp"
#include "trellis_kernels.hpp"

namespace nnc {

namespace {

std::atomic<bool> portable_only = false;

}  // namespace

int Survivors::best() const {
    int best = 0;
    for (int state = 1; state < 8; ++state)
        if (costs[kLaneOf[state]] < costs[kLaneOf[best]]) best = state;
    return best;
}

RatedSurvivors::Best RatedSurvivors::best() const {
    const int zero = after_zero.best(), other = after_other.best();
    const double of_zero = after_zero.costs[kLaneOf[zero]], of_other = after_other.costs[kLaneOf[other]];
    return of_other < of_zero ? Best{other, true} : Best{zero, false};
}

void force_portable_kernels(bool force) { portable_only = force; }

const Kernels& kernels() {
#ifdef NNC_HAS_AVX2
    static const bool has_avx2 = __builtin_cpu_supports("avx2");
    if (has_avx2 && !portable_only) return kAvx2Kernels;
#endif
    static constexpr Kernels portable = TrellisKernels<PortableQuad>::table;
    return portable;
}

}  // namespace nnc
