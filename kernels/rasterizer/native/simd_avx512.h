// Sixteen float lanes in one AVX-512 register.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace lrm {
namespace {

struct M16 {
    __mmask16 v;
};
struct F16 {
    __m512 v;
};

static inline F16 set1(float x) { return {_mm512_set1_ps(x)}; }
static inline F16 zero() { return {_mm512_setzero_ps()}; }
static inline F16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
static inline void store(float* p, F16 a) { _mm512_storeu_ps(p, a.v); }
// Past the caches, to a multiple of 64 bytes; `streamed` comes before another thread reads it.
static inline void stream(float* p, F16 a) { _mm512_stream_ps(p, a.v); }
static inline void streamed() { _mm_sfence(); }
static inline F16 operator+(F16 a, F16 b) { return {_mm512_add_ps(a.v, b.v)}; }
static inline F16 operator-(F16 a, F16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
static inline F16 operator*(F16 a, F16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
static inline F16 operator/(F16 a, F16 b) { return {_mm512_div_ps(a.v, b.v)}; }
static inline F16 fma(F16 a, F16 b, F16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
static inline F16 fnma(F16 a, F16 b, F16 c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
static inline F16 fms(F16 a, F16 b, F16 c) { return {_mm512_fmsub_ps(a.v, b.v, c.v)}; }
static inline F16 min(F16 a, F16 b) { return {_mm512_min_ps(a.v, b.v)}; }
static inline F16 max(F16 a, F16 b) { return {_mm512_max_ps(a.v, b.v)}; }
static inline F16 sqrt(F16 a) { return {_mm512_sqrt_ps(a.v)}; }
static inline F16 round(F16 a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
static inline F16 ldexp(F16 a, F16 n) { return {_mm512_scalef_ps(a.v, n.v)}; }

// x = mantissa * 2^exponent with the mantissa in [1, 2), for positive normal x.
static inline F16 mantissa(F16 x, F16& exponent) {
    exponent.v = _mm512_getexp_ps(x.v);
    return {_mm512_getmant_ps(x.v, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_zero)};
}

// One Newton step on the 14-bit estimate: relative error below 2e-7.
static inline F16 reciprocal(F16 a) {
    __m512 r = _mm512_rcp14_ps(a.v);
    return {_mm512_fmadd_ps(_mm512_fnmadd_ps(a.v, r, _mm512_set1_ps(1.0f)), r, r)};
}

static inline M16 operator<(F16 a, F16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
static inline M16 operator<=(F16 a, F16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
static inline M16 operator>(F16 a, F16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ)}; }
static inline M16 operator>=(F16 a, F16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ)}; }
static inline M16 operator&(M16 a, M16 b) { return {_kand_mask16(a.v, b.v)}; }
// The comparison where m holds, in one instruction.
static inline M16 and_above(M16 m, F16 a, F16 b) {
    return {_mm512_mask_cmp_ps_mask(m.v, a.v, b.v, _CMP_GT_OQ)};
}
static inline M16 and_at_least(M16 m, F16 a, F16 b) {
    return {_mm512_mask_cmp_ps_mask(m.v, a.v, b.v, _CMP_GE_OQ)};
}
static inline M16 and_at_most(M16 m, F16 a, F16 b) {
    return {_mm512_mask_cmp_ps_mask(m.v, a.v, b.v, _CMP_LE_OQ)};
}
static inline M16 without(M16 a, M16 b) { return {_kandn_mask16(b.v, a.v)}; }
static inline uint32_t bits(M16 m) { return static_cast<uint32_t>(m.v); }
static inline M16 mask_from_bits(uint32_t b) { return {static_cast<__mmask16>(b)}; }
static inline bool any(M16 m) { return !_kortestz_mask16_u8(m.v, m.v); }
static inline F16 select(M16 m, F16 yes, F16 no) { return {_mm512_mask_blend_ps(m.v, no.v, yes.v)}; }
static inline F16 select(M16 m, F16 yes) { return {_mm512_maskz_mov_ps(m.v, yes.v)}; }

// Four rows of four pixels: row i goes to lanes 4 i to 4 i + 3.
static inline F16 load_rows(const float* p, int64_t stride) {
    __m512 a = _mm512_castps128_ps512(_mm_loadu_ps(p));
    a = _mm512_insertf32x4(a, _mm_loadu_ps(p + stride), 1);
    a = _mm512_insertf32x4(a, _mm_loadu_ps(p + 2 * stride), 2);
    return {_mm512_insertf32x4(a, _mm_loadu_ps(p + 3 * stride), 3)};
}
static inline void store_rows(float* p, int64_t stride, F16 a) {
    _mm_storeu_ps(p, _mm512_castps512_ps128(a.v));
    _mm_storeu_ps(p + stride, _mm512_extractf32x4_ps(a.v, 1));
    _mm_storeu_ps(p + 2 * stride, _mm512_extractf32x4_ps(a.v, 2));
    _mm_storeu_ps(p + 3 * stride, _mm512_extractf32x4_ps(a.v, 3));
}

// Bit `bit` of each of 32 words, as a number.
static inline uint32_t bit_of_words(const uint16_t* words, int bit) {
    return _mm512_test_epi16_mask(_mm512_loadu_si512(words), _mm512_set1_epi16(static_cast<short>(1 << bit)));
}

// Transpose sixteen vectors in place.
static inline void transpose16(F16 r[16]) {
    __m512 t[16];
    for (int i = 0; i < 8; ++i) {
        t[2 * i] = _mm512_unpacklo_ps(r[2 * i].v, r[2 * i + 1].v);
        t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i].v, r[2 * i + 1].v);
    }
    __m512 u[16];
    for (int i = 0; i < 4; ++i) {
        u[4 * i + 0] = _mm512_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
        u[4 * i + 1] = _mm512_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
        u[4 * i + 2] = _mm512_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
        u[4 * i + 3] = _mm512_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
    }
    for (int j = 0; j < 4; ++j) {
        __m512 a = _mm512_shuffle_f32x4(u[j], u[4 + j], 0x88);
        __m512 b = _mm512_shuffle_f32x4(u[j], u[4 + j], 0xdd);
        __m512 c = _mm512_shuffle_f32x4(u[8 + j], u[12 + j], 0x88);
        __m512 d = _mm512_shuffle_f32x4(u[8 + j], u[12 + j], 0xdd);
        r[j].v = _mm512_shuffle_f32x4(a, c, 0x88);
        r[4 + j].v = _mm512_shuffle_f32x4(b, d, 0x88);
        r[8 + j].v = _mm512_shuffle_f32x4(a, c, 0xdd);
        r[12 + j].v = _mm512_shuffle_f32x4(b, d, 0xdd);
    }
}

}  // namespace
}  // namespace lrm
