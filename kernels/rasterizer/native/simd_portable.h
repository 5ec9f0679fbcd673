// Sixteen float lanes in an array: any processor, vectorised as far as the compiler can.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace lrm {
namespace {

struct M16 {
    uint32_t v[16];
};
struct F16 {
    float v[16];
};

#define LRM_LANES for (int i = 0; i < 16; ++i)

static inline F16 set1(float x) {
    F16 r;
    LRM_LANES r.v[i] = x;
    return r;
}
static inline F16 zero() { return set1(0.0f); }
static inline F16 load(const float* p) {
    F16 r;
    std::memcpy(r.v, p, sizeof r.v);
    return r;
}
static inline void store(float* p, F16 a) { std::memcpy(p, a.v, sizeof a.v); }
static inline void stream(float* p, F16 a) { store(p, a); }
static inline void streamed() {}

#define LRM_BINARY(name, expression)              \
    static inline F16 name(F16 a, F16 b) {        \
        F16 r;                                    \
        LRM_LANES r.v[i] = expression;            \
        return r;                                 \
    }
#define LRM_TERNARY(name, expression)             \
    static inline F16 name(F16 a, F16 b, F16 c) { \
        F16 r;                                    \
        LRM_LANES r.v[i] = expression;            \
        return r;                                 \
    }
#define LRM_COMPARE(op)                           \
    static inline M16 operator op(F16 a, F16 b) { \
        M16 r;                                    \
        LRM_LANES r.v[i] = a.v[i] op b.v[i] ? ~0u : 0u; \
        return r;                                 \
    }
LRM_BINARY(operator+, a.v[i] + b.v[i])
LRM_BINARY(operator-, a.v[i] - b.v[i])
LRM_BINARY(operator*, a.v[i] * b.v[i])
LRM_BINARY(operator/, a.v[i] / b.v[i])
LRM_BINARY(min, a.v[i] < b.v[i] ? a.v[i] : b.v[i])
LRM_BINARY(max, a.v[i] > b.v[i] ? a.v[i] : b.v[i])
LRM_TERNARY(fma, a.v[i] * b.v[i] + c.v[i])
LRM_TERNARY(fnma, c.v[i] - a.v[i] * b.v[i])
LRM_TERNARY(fms, a.v[i] * b.v[i] - c.v[i])
LRM_COMPARE(<)
LRM_COMPARE(<=)
LRM_COMPARE(>)
LRM_COMPARE(>=)
#undef LRM_BINARY
#undef LRM_TERNARY
#undef LRM_COMPARE

static inline F16 sqrt(F16 a) {
    F16 r;
    LRM_LANES r.v[i] = std::sqrt(a.v[i]);
    return r;
}
// Adding and taking away 1.5 * 2^23 rounds to the nearest integer; good for |a| below 2^22.
static inline F16 round(F16 a) {
    F16 r;
    LRM_LANES {
        float shifted = a.v[i] + 12582912.0f;
        r.v[i] = shifted - 12582912.0f;
    }
    return r;
}
// a 2^n, where an n below -100 counts as -100: the exponent is added as an integer, and must stay a normal one's.
static inline F16 ldexp(F16 a, F16 n) {
    F16 r;
    n = max(n, set1(-100.0f));
    LRM_LANES {
        int32_t b;
        std::memcpy(&b, &a.v[i], 4);
        b += static_cast<int32_t>(n.v[i]) * (1 << 23);
        std::memcpy(&r.v[i], &b, 4);
    }
    return r;
}
// x = mantissa * 2^exponent with the mantissa in [1, 2), for positive normal x.
static inline F16 mantissa(F16 x, F16& exponent) {
    F16 r;
    LRM_LANES {
        uint32_t b;
        std::memcpy(&b, &x.v[i], 4);
        exponent.v[i] = static_cast<float>(static_cast<int32_t>(b >> 23) - 127);
        b = (b & 0x7fffffu) | 0x3f800000u;
        std::memcpy(&r.v[i], &b, 4);
    }
    return r;
}
static inline F16 reciprocal(F16 a) { return set1(1.0f) / a; }

static inline M16 operator&(M16 a, M16 b) {
    LRM_LANES a.v[i] &= b.v[i];
    return a;
}
static inline M16 and_above(M16 m, F16 a, F16 b) { return m & (a > b); }
static inline M16 and_at_least(M16 m, F16 a, F16 b) { return m & (a >= b); }
static inline M16 and_at_most(M16 m, F16 a, F16 b) { return m & (a <= b); }
static inline M16 without(M16 a, M16 b) {
    LRM_LANES a.v[i] &= ~b.v[i];
    return a;
}
static inline uint32_t bits(M16 m) {
    uint32_t r = 0;
    LRM_LANES r |= (m.v[i] & 1u) << i;
    return r;
}
static inline M16 mask_from_bits(uint32_t b) {
    M16 r;
    LRM_LANES r.v[i] = (b >> i) & 1u ? ~0u : 0u;
    return r;
}
static inline bool any(M16 m) {
    uint32_t r = 0;
    LRM_LANES r |= m.v[i];
    return r != 0;
}
static inline F16 select(M16 m, F16 yes, F16 no) {
    uint32_t y[16], n[16];
    std::memcpy(y, yes.v, sizeof y);
    std::memcpy(n, no.v, sizeof n);
    LRM_LANES n[i] = (y[i] & m.v[i]) | (n[i] & ~m.v[i]);
    F16 r;
    std::memcpy(r.v, n, sizeof n);
    return r;
}
static inline F16 select(M16 m, F16 yes) { return select(m, yes, zero()); }

// Four rows of four pixels: row i goes to lanes 4 i to 4 i + 3.
static inline F16 load_rows(const float* p, int64_t stride) {
    F16 r;
    for (int i = 0; i < 4; ++i) std::memcpy(r.v + 4 * i, p + i * stride, 16);
    return r;
}
static inline void store_rows(float* p, int64_t stride, F16 a) {
    for (int i = 0; i < 4; ++i) std::memcpy(p + i * stride, a.v + 4 * i, 16);
}

// Bit `bit` of each of 32 words, as a number.
static inline uint32_t bit_of_words(const uint16_t* words, int bit) {
    uint32_t r = 0;
    for (int i = 0; i < 32; ++i) r |= static_cast<uint32_t>(words[i] >> bit & 1) << i;
    return r;
}

// Transpose sixteen vectors in place.
static inline void transpose16(F16 r[16]) {
    for (int i = 0; i < 16; ++i)
        for (int j = 0; j < i; ++j) {
            float t = r[i].v[j];
            r[i].v[j] = r[j].v[i];
            r[j].v[i] = t;
        }
}
#undef LRM_LANES

}  // namespace
}  // namespace lrm
