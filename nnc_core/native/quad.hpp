// Four numbers of binary64 that are worked on together. The kernels of the trellis are written for any such type; this
// one is for every machine.
#pragma once

namespace nnc {

struct PortableQuad {
    // The outcomes of comparing four pairs of numbers.
    struct Truth {
        unsigned v;
        unsigned bits() const { return v; }
    };

    double v[4];

    static PortableQuad all(double x) { return {{x, x, x, x}}; }
    static PortableQuad load(const double* p) { return {{p[0], p[1], p[2], p[3]}}; }
    void store(double* p) const {
        for (int i = 0; i < 4; ++i) p[i] = v[i];
    }
    PortableQuad operator+(PortableQuad b) const {
        for (int i = 0; i < 4; ++i) b.v[i] += v[i];
        return b;
    }
    // This number where it is smaller, else the other.
    PortableQuad smaller_or(PortableQuad b) const {
        for (int i = 0; i < 4; ++i) b.v[i] = v[i] < b.v[i] ? v[i] : b.v[i];
        return b;
    }
    Truth operator<(PortableQuad b) const { return {first_half(b, false) | last_half(b, false)}; }
    // Of equal numbers, those of the last (first) two count as less.
    static Truth less_late(PortableQuad a, PortableQuad b) { return {a.first_half(b, false) | a.last_half(b, true)}; }
    static Truth less_early(PortableQuad a, PortableQuad b) { return {a.first_half(b, true) | a.last_half(b, false)}; }
    PortableQuad halves_exchanged() const { return {{v[2], v[3], v[0], v[1]}}; }

  private:
    unsigned compare(PortableQuad b, int i, bool or_equal) const {
        return static_cast<unsigned>(or_equal ? v[i] <= b.v[i] : v[i] < b.v[i]) << i;
    }
    unsigned first_half(PortableQuad b, bool or_equal) const {
        return compare(b, 0, or_equal) | compare(b, 1, or_equal);
    }
    unsigned last_half(PortableQuad b, bool or_equal) const {
        return compare(b, 2, or_equal) | compare(b, 3, or_equal);
    }
};

// Of the eight numbers in two groups: those with even places; those with odd ones, backwards.
inline PortableQuad even_ones(PortableQuad a, PortableQuad b) { return {{a.v[0], a.v[2], b.v[0], b.v[2]}}; }
inline PortableQuad odd_ones_backwards(PortableQuad a, PortableQuad b) { return {{b.v[3], b.v[1], a.v[3], a.v[1]}}; }

}  // namespace nnc
