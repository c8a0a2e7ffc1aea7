// Two numbers of binary64 that are worked on together; with or without vector instructions the results are the same.
#pragma once

#if defined(__SSE2__) || defined(_M_X64)
#include <emmintrin.h>
#endif

namespace nnc {

#if defined(__SSE2__) || defined(_M_X64)

class Pair {
  public:
    Pair() : v_(_mm_setzero_pd()) {}
    Pair(double first, double second) : v_(_mm_set_pd(second, first)) {}
    static Pair both(double value) { return Pair(_mm_set1_pd(value)); }
    // The first (`low`) or second (`high`) number of each of two pairs.
    static Pair low(Pair a, Pair b) { return Pair(_mm_unpacklo_pd(a.v_, b.v_)); }
    static Pair high(Pair a, Pair b) { return Pair(_mm_unpackhi_pd(a.v_, b.v_)); }

    friend Pair operator+(Pair a, Pair b) { return Pair(_mm_add_pd(a.v_, b.v_)); }
    // This number where it is smaller, else the other.
    Pair smaller_or(Pair other) const { return Pair(_mm_min_pd(v_, other.v_)); }
    // Bit 0 tells whether the first number is less, bit 1 the second.
    unsigned less(Pair other) const { return static_cast<unsigned>(_mm_movemask_pd(_mm_cmplt_pd(v_, other.v_))); }
    double operator[](int i) const { return i == 0 ? _mm_cvtsd_f64(v_) : _mm_cvtsd_f64(_mm_unpackhi_pd(v_, v_)); }

  private:
    explicit Pair(__m128d v) : v_(v) {}
    __m128d v_;
};

#else

class Pair {
  public:
    Pair() = default;
    Pair(double first, double second) : v_{first, second} {}
    static Pair both(double value) { return {value, value}; }
    static Pair low(Pair a, Pair b) { return {a.v_[0], b.v_[0]}; }
    static Pair high(Pair a, Pair b) { return {a.v_[1], b.v_[1]}; }

    friend Pair operator+(Pair a, Pair b) { return {a.v_[0] + b.v_[0], a.v_[1] + b.v_[1]}; }
    Pair smaller_or(Pair other) const {
        return {v_[0] < other.v_[0] ? v_[0] : other.v_[0], v_[1] < other.v_[1] ? v_[1] : other.v_[1]};
    }
    unsigned less(Pair other) const {
        return static_cast<unsigned>(v_[0] < other.v_[0]) | static_cast<unsigned>(v_[1] < other.v_[1]) << 1;
    }
    double operator[](int i) const { return v_[i]; }

  private:
    double v_[2] = {0, 0};
};

#endif

}  // namespace nnc
