// Sixteen float lanes in two AVX2 registers.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace lrm {
namespace {

struct M16 {
    __m256 lo, hi;
};
struct F16 {
    __m256 lo, hi;
};

static inline F16 set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
static inline F16 zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
static inline F16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
static inline void store(float* p, F16 a) {
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}
// Past the caches, to a multiple of 64 bytes; `streamed` comes before another thread reads it.
static inline void stream(float* p, F16 a) {
    _mm256_stream_ps(p, a.lo);
    _mm256_stream_ps(p + 8, a.hi);
}
static inline void streamed() { _mm_sfence(); }
static inline F16 operator+(F16 a, F16 b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
static inline F16 operator-(F16 a, F16 b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
static inline F16 operator*(F16 a, F16 b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
static inline F16 operator/(F16 a, F16 b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
static inline F16 fma(F16 a, F16 b, F16 c) {
    return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
static inline F16 fnma(F16 a, F16 b, F16 c) {
    return {_mm256_fnmadd_ps(a.lo, b.lo, c.lo), _mm256_fnmadd_ps(a.hi, b.hi, c.hi)};
}
static inline F16 fms(F16 a, F16 b, F16 c) {
    return {_mm256_fmsub_ps(a.lo, b.lo, c.lo), _mm256_fmsub_ps(a.hi, b.hi, c.hi)};
}
static inline F16 min(F16 a, F16 b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
static inline F16 max(F16 a, F16 b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
static inline F16 sqrt(F16 a) { return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }
static inline F16 round(F16 a) {
    constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(a.lo, mode), _mm256_round_ps(a.hi, mode)};
}
// a 2^n, where an n below -100 counts as -100: the exponent is added as an integer, and must stay a normal one's.
static inline F16 ldexp(F16 a, F16 n) {
    n = max(n, set1(-100.0f));
    __m256i lo = _mm256_slli_epi32(_mm256_cvtps_epi32(n.lo), 23);
    __m256i hi = _mm256_slli_epi32(_mm256_cvtps_epi32(n.hi), 23);
    return {_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a.lo), lo)),
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a.hi), hi))};
}
static inline __m256 mantissa8(__m256 x, __m256& exponent) {
    const __m256i b = _mm256_castps_si256(x);
    exponent = _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_srli_epi32(b, 23), _mm256_set1_epi32(127)));
    const __m256i fraction = _mm256_and_si256(b, _mm256_set1_epi32(0x7fffff));
    return _mm256_castsi256_ps(_mm256_or_si256(fraction, _mm256_set1_epi32(0x3f800000)));
}
// x = mantissa * 2^exponent with the mantissa in [1, 2), for positive normal x.
static inline F16 mantissa(F16 x, F16& exponent) {
    return {mantissa8(x.lo, exponent.lo), mantissa8(x.hi, exponent.hi)};
}
static inline F16 reciprocal(F16 a) { return set1(1.0f) / a; }

#define LRM_COMPARE(op, predicate)                             \
    static inline M16 operator op(F16 a, F16 b) {              \
        return {_mm256_cmp_ps(a.lo, b.lo, predicate), _mm256_cmp_ps(a.hi, b.hi, predicate)}; \
    }
LRM_COMPARE(<, _CMP_LT_OQ)
LRM_COMPARE(<=, _CMP_LE_OQ)
LRM_COMPARE(>, _CMP_GT_OQ)
LRM_COMPARE(>=, _CMP_GE_OQ)
#undef LRM_COMPARE

static inline M16 operator&(M16 a, M16 b) { return {_mm256_and_ps(a.lo, b.lo), _mm256_and_ps(a.hi, b.hi)}; }
static inline M16 and_above(M16 m, F16 a, F16 b) { return m & (a > b); }
static inline M16 and_at_least(M16 m, F16 a, F16 b) { return m & (a >= b); }
static inline M16 and_at_most(M16 m, F16 a, F16 b) { return m & (a <= b); }
static inline M16 without(M16 a, M16 b) { return {_mm256_andnot_ps(b.lo, a.lo), _mm256_andnot_ps(b.hi, a.hi)}; }
static inline uint32_t bits(M16 m) {
    return static_cast<uint32_t>(_mm256_movemask_ps(m.lo)) | (static_cast<uint32_t>(_mm256_movemask_ps(m.hi)) << 8);
}
static inline M16 mask_from_bits(uint32_t b) {
    const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    __m256i lo = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(b)), lane);
    __m256i hi = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(b >> 8)), lane);
    return {_mm256_castsi256_ps(_mm256_cmpeq_epi32(lo, lane)), _mm256_castsi256_ps(_mm256_cmpeq_epi32(hi, lane))};
}
static inline bool any(M16 m) { return _mm256_movemask_ps(_mm256_or_ps(m.lo, m.hi)) != 0; }
static inline F16 select(M16 m, F16 yes, F16 no) {
    return {_mm256_blendv_ps(no.lo, yes.lo, m.lo), _mm256_blendv_ps(no.hi, yes.hi, m.hi)};
}
static inline F16 select(M16 m, F16 yes) { return {_mm256_and_ps(m.lo, yes.lo), _mm256_and_ps(m.hi, yes.hi)}; }

// Four rows of four pixels: row i goes to lanes 4 i to 4 i + 3.
static inline F16 load_rows(const float* p, int64_t stride) {
    return {_mm256_loadu2_m128(p + stride, p), _mm256_loadu2_m128(p + 3 * stride, p + 2 * stride)};
}
static inline void store_rows(float* p, int64_t stride, F16 a) {
    _mm256_storeu2_m128(p + stride, p, a.lo);
    _mm256_storeu2_m128(p + 3 * stride, p + 2 * stride, a.hi);
}

// Bit `bit` of each of 32 words, as a number.
static inline uint32_t bit_of_words(const uint16_t* words, int bit) {
    const __m128i shift = _mm_cvtsi32_si128(15 - bit);
    const __m256i* p = reinterpret_cast<const __m256i*>(words);
    const __m256i a = _mm256_sll_epi16(_mm256_loadu_si256(p), shift);
    const __m256i b = _mm256_sll_epi16(_mm256_loadu_si256(p + 1), shift);
    // Packing with saturation keeps the sign, which is the bit, but mixes the halves.
    const __m256i signs = _mm256_permute4x64_epi64(_mm256_packs_epi16(a, b), 0xd8);
    return static_cast<uint32_t>(_mm256_movemask_epi8(signs));
}

static inline void transpose8(__m256 r[8]) {
    __m256 t[8], u[8];
    for (int i = 0; i < 4; ++i) {
        t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 2; ++i) {
        u[4 * i + 0] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
        u[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
        u[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
        u[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
    }
    for (int j = 0; j < 4; ++j) {
        r[j] = _mm256_permute2f128_ps(u[j], u[4 + j], 0x20);
        r[4 + j] = _mm256_permute2f128_ps(u[j], u[4 + j], 0x31);
    }
}

// Transpose sixteen vectors in place.
static inline void transpose16(F16 r[16]) {
    __m256 a[8], b[8], c[8], d[8];
    for (int i = 0; i < 8; ++i) {
        a[i] = r[i].lo;
        b[i] = r[i].hi;
        c[i] = r[8 + i].lo;
        d[i] = r[8 + i].hi;
    }
    transpose8(a);
    transpose8(b);
    transpose8(c);
    transpose8(d);
    for (int i = 0; i < 8; ++i) {
        r[i] = {a[i], c[i]};
        r[8 + i] = {b[i], d[i]};
    }
}

}  // namespace
}  // namespace lrm
