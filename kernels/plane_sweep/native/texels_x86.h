// Bilinear samples at sixteen places, by 16 and 32 byte loads: they beat gathers, for four channels lie side by side.
//
// Sample i of eight lies in half i / 4 of a register, so that four registers of one sample a half, transposed four by
// four within the halves, come out in order.
#pragma once

namespace lrm {
namespace {

struct Texels {
    // Bytes from the start of the texture to the upper left texel; weights of the right and of the lower texels.
    alignas(64) uint32_t offset[16];
    alignas(64) float right[16];
    alignas(64) float below[16];
};

inline __m256 mix(__m256 from, __m256 to, __m256 share) {
    return _mm256_fmadd_ps(_mm256_sub_ps(to, from), share, from);
}

inline void transpose_halves(__m256 r[4]) {
    const __m256 a = _mm256_unpacklo_ps(r[0], r[1]), b = _mm256_unpackhi_ps(r[0], r[1]);
    const __m256 c = _mm256_unpacklo_ps(r[2], r[3]), d = _mm256_unpackhi_ps(r[2], r[3]);
    r[0] = _mm256_shuffle_ps(a, c, 0x44);
    r[1] = _mm256_shuffle_ps(a, c, 0xee);
    r[2] = _mm256_shuffle_ps(b, d, 0x44);
    r[3] = _mm256_shuffle_ps(b, d, 0xee);
}

inline const float* texel(const float* texture, uint32_t offset) {
    return reinterpret_cast<const float*>(reinterpret_cast<const char*>(texture) + offset);
}

// The left and right texel of one sample, mixed vertically.
inline __m256 mix_rows(const float* upper, const float* lower, const Texels& t, int i) {
    return mix(_mm256_loadu_ps(texel(upper, t.offset[i])), _mm256_loadu_ps(texel(lower, t.offset[i])),
               _mm256_broadcast_ss(t.below + i));
}

template <int k>
inline __m256 mix_pair(const float* upper, const float* lower, const Texels& t, int first, __m256 right) {
    const __m256 a = mix_rows(upper, lower, t, first + k), b = mix_rows(upper, lower, t, first + k + 4);
    return mix(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31), _mm256_permute_ps(right, k * 0x55));
}

inline void bilinear_eight(const float* upper, const float* lower, const Texels& t, int first, __m256 out[4]) {
    const __m256 right = _mm256_load_ps(t.right + first);
    out[0] = mix_pair<0>(upper, lower, t, first, right);
    out[1] = mix_pair<1>(upper, lower, t, first, right);
    out[2] = mix_pair<2>(upper, lower, t, first, right);
    out[3] = mix_pair<3>(upper, lower, t, first, right);
    transpose_halves(out);
}

inline __m256 bilinear_eight_quads(const float* quads, const Texels& t, int first) {
    __m256 r[4];
    for (int k = 0; k < 4; ++k) {
        const __m256 one = _mm256_castps128_ps256(_mm_loadu_ps(texel(quads, t.offset[first + k])));
        r[k] = _mm256_insertf128_ps(one, _mm_loadu_ps(texel(quads, t.offset[first + k + 4])), 1);
    }
    transpose_halves(r);
    const __m256 right = _mm256_load_ps(t.right + first);
    return mix(mix(r[0], r[1], right), mix(r[2], r[3], right), _mm256_load_ps(t.below + first));
}

#ifdef __AVX512F__
inline F16 join(__m256 lo, __m256 hi) {
    return {_mm512_castpd_ps(_mm512_insertf64x4(_mm512_castps_pd(_mm512_castps256_ps512(lo)), _mm256_castps_pd(hi), 1))};
}
inline F16 absolute(F16 a) { return {_mm512_abs_ps(a.v)}; }
// x and y are not negative.
inline void locate(F16 x, F16 y, int32_t stride, Texels& t) {
    const __m512i column = _mm512_cvttps_epi32(x.v), row = _mm512_cvttps_epi32(y.v);
    const __m512i index = _mm512_add_epi32(column, _mm512_mullo_epi32(row, _mm512_set1_epi32(stride)));
    _mm512_store_si512(t.offset, _mm512_slli_epi32(index, 4));
    _mm512_store_ps(t.right, _mm512_sub_ps(x.v, _mm512_cvtepi32_ps(column)));
    _mm512_store_ps(t.below, _mm512_sub_ps(y.v, _mm512_cvtepi32_ps(row)));
}
#else
inline F16 join(__m256 lo, __m256 hi) { return {lo, hi}; }
inline F16 absolute(F16 a) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}
inline void locate_eight(__m256 x, __m256 y, __m256i stride, Texels& t, int first) {
    const __m256i column = _mm256_cvttps_epi32(x), row = _mm256_cvttps_epi32(y);
    const __m256i index = _mm256_add_epi32(column, _mm256_mullo_epi32(row, stride));
    _mm256_store_si256(reinterpret_cast<__m256i*>(t.offset + first), _mm256_slli_epi32(index, 4));
    _mm256_store_ps(t.right + first, _mm256_sub_ps(x, _mm256_cvtepi32_ps(column)));
    _mm256_store_ps(t.below + first, _mm256_sub_ps(y, _mm256_cvtepi32_ps(row)));
}
// x and y are not negative.
inline void locate(F16 x, F16 y, int32_t stride, Texels& t) {
    locate_eight(x.lo, y.lo, _mm256_set1_epi32(stride), t, 0);
    locate_eight(x.hi, y.hi, _mm256_set1_epi32(stride), t, 8);
}
#endif

inline void bilinear_colours(const float* texture, int32_t stride, const Texels& t, F16 out[4]) {
    __m256 lo[4], hi[4];
    bilinear_eight(texture, texture + 4 * stride, t, 0, lo);
    bilinear_eight(texture, texture + 4 * stride, t, 8, hi);
    for (int i = 0; i < 4; ++i) out[i] = join(lo[i], hi[i]);
}

inline F16 bilinear_quads(const float* quads, const Texels& t) {
    return join(bilinear_eight_quads(quads, t, 0), bilinear_eight_quads(quads, t, 8));
}

}  // namespace
}  // namespace lrm
