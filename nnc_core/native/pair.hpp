// Two numbers of binary64 that are worked on together; with or without vector instructions the results are the same.
#pragma once

#if defined(__SSE2__) || defined(_M_X64)
#include <emmintrin.h>
#endif

namespace nnc {

#if defined(__SSE2__) || defined(_M_X64)

// The outcomes of comparing two pairs.
class Truth {
  public:
    explicit Truth(__m128d v) : v_(_mm_castpd_ps(v)) {}
    // Bits 0 to 7 are the eight outcomes of `a`, bits 8 to 15 those of `b`.
    static unsigned collect(const Truth (&a)[4], const Truth (&b)[4]) {
        return static_cast<unsigned>(_mm_movemask_epi8(_mm_packs_epi16(narrow(a), narrow(b))));
    }

  private:
    static __m128i narrow(const Truth (&t)[4]) {
        return _mm_packs_epi32(first_halves(t[0], t[1]), first_halves(t[2], t[3]));
    }
    static __m128i first_halves(Truth a, Truth b) {
        return _mm_castps_si128(_mm_shuffle_ps(a.v_, b.v_, _MM_SHUFFLE(2, 0, 2, 0)));
    }
    __m128 v_;
};

class Pair {
  public:
    Pair() : v_(_mm_setzero_pd()) {}
    Pair(double first, double second) : v_(_mm_set_pd(second, first)) {}
    static Pair both(double value) { return Pair(_mm_set1_pd(value)); }
    // The first (`low`) or second (`high`) number of each of two pairs.
    static Pair low(Pair a, Pair b) { return Pair(_mm_unpacklo_pd(a.v_, b.v_)); }
    static Pair high(Pair a, Pair b) { return Pair(_mm_unpackhi_pd(a.v_, b.v_)); }

    friend Pair operator+(Pair a, Pair b) { return Pair(_mm_add_pd(a.v_, b.v_)); }
    friend Pair operator-(Pair a, Pair b) { return Pair(_mm_sub_pd(a.v_, b.v_)); }
    friend Pair operator*(Pair a, Pair b) { return Pair(_mm_mul_pd(a.v_, b.v_)); }
    friend Truth operator<(Pair a, Pair b) { return Truth(_mm_cmplt_pd(a.v_, b.v_)); }
    friend Truth operator<=(Pair a, Pair b) { return Truth(_mm_cmple_pd(a.v_, b.v_)); }
    // This number where it is smaller, else the other.
    Pair smaller_or(Pair other) const { return Pair(_mm_min_pd(v_, other.v_)); }
    void store(double* p) const { _mm_storeu_pd(p, v_); }
    double operator[](int i) const { return i == 0 ? _mm_cvtsd_f64(v_) : _mm_cvtsd_f64(_mm_unpackhi_pd(v_, v_)); }

  private:
    explicit Pair(__m128d v) : v_(v) {}
    __m128d v_;
};

#else

struct Truth {
    bool first, second;
    static unsigned collect(const Truth (&a)[4], const Truth (&b)[4]) {
        unsigned bits = 0;
        for (unsigned i = 0; i < 4; ++i) {
            bits |= (unsigned{a[i].first} | unsigned{a[i].second} << 1) << (2 * i);
            bits |= (unsigned{b[i].first} | unsigned{b[i].second} << 1) << (8 + 2 * i);
        }
        return bits;
    }
};

class Pair {
  public:
    Pair() = default;
    Pair(double first, double second) : v_{first, second} {}
    static Pair both(double value) { return {value, value}; }
    static Pair low(Pair a, Pair b) { return {a.v_[0], b.v_[0]}; }
    static Pair high(Pair a, Pair b) { return {a.v_[1], b.v_[1]}; }

    friend Pair operator+(Pair a, Pair b) { return {a.v_[0] + b.v_[0], a.v_[1] + b.v_[1]}; }
    friend Pair operator-(Pair a, Pair b) { return {a.v_[0] - b.v_[0], a.v_[1] - b.v_[1]}; }
    friend Pair operator*(Pair a, Pair b) { return {a.v_[0] * b.v_[0], a.v_[1] * b.v_[1]}; }
    friend Truth operator<(Pair a, Pair b) { return {a.v_[0] < b.v_[0], a.v_[1] < b.v_[1]}; }
    friend Truth operator<=(Pair a, Pair b) { return {a.v_[0] <= b.v_[0], a.v_[1] <= b.v_[1]}; }
    Pair smaller_or(Pair other) const {
        return {v_[0] < other.v_[0] ? v_[0] : other.v_[0], v_[1] < other.v_[1] ? v_[1] : other.v_[1]};
    }
    void store(double* p) const { p[0] = v_[0], p[1] = v_[1]; }
    double operator[](int i) const { return v_[i]; }

  private:
    double v_[2] = {0, 0};
};

#endif

}  // namespace nnc
