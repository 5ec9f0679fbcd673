// Formulas on sixteen Gaussians or pixels at a time; included after one of the simd_*.h.
#pragma once

namespace lrm {
namespace {

// 2^s for s <= 0, relative error below 2e-7.
static inline F16 exp2(F16 s) {
    const F16 n = round(s), f = s - n;
    F16 p = fma(set1(1.32647261e-3f), f, set1(9.67151299e-3f));
    p = fma(p, f, set1(5.55073358e-2f));
    p = fma(p, f, set1(2.40222424e-1f));
    p = fma(p, f, set1(6.93147004e-1f));
    p = fma(p, f, set1(1.0f));
    return ldexp(p, n);
}

struct Vec3 {
    F16 x, y, z;
};

static inline F16 dot(Vec3 a, Vec3 b) { return fma(a.x, b.x, fma(a.y, b.y, a.z * b.z)); }
static inline Vec3 cross(Vec3 a, Vec3 b) {
    return {fms(a.y, b.z, a.z * b.y), fms(a.z, b.x, a.x * b.z), fms(a.x, b.y, a.y * b.x)};
}
static inline Vec3 operator+(Vec3 a, Vec3 b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
static inline Vec3 operator*(F16 k, Vec3 a) { return {k * a.x, k * a.y, k * a.z}; }
// a + k b
static inline Vec3 add_scaled(Vec3 a, F16 k, Vec3 b) { return {fma(k, b.x, a.x), fma(k, b.y, a.y), fma(k, b.z, a.z)}; }

// SH basis functions of degree 0 to 3 at unit directions; `count` is 1, 4, 9 or 16.
static inline void sh_basis(Vec3 d, int count, F16* b) {
    b[0] = set1(0.28209479177387814f);
    if (count < 4) return;
    const F16 x = d.x, y = d.y, z = d.z;
    const F16 k1 = set1(0.48860251190291987f);
    b[1] = zero() - k1 * y;
    b[2] = k1 * z;
    b[3] = zero() - k1 * x;
    if (count < 9) return;
    const F16 xx = x * x, yy = y * y, zz = z * z, xy = x * y, yz = y * z, xz = x * z;
    b[4] = set1(1.0925484305920792f) * xy;
    b[5] = set1(-1.0925484305920792f) * yz;
    b[6] = fms(set1(0.9461746957575601f), zz, set1(0.31539156525251999f));
    b[7] = set1(-1.0925484305920792f) * xz;
    b[8] = set1(0.5462742152960396f) * (xx - yy);
    if (count < 16) return;
    const F16 four_zz = fms(set1(5.0f), zz, set1(1.0f));
    b[9] = set1(-0.5900435899266435f) * y * (set1(3.0f) * xx - yy);
    b[10] = set1(2.890611442640554f) * xy * z;
    b[11] = set1(-0.4570457994644658f) * y * four_zz;
    b[12] = set1(0.3731763325901154f) * z * fms(set1(5.0f), zz, set1(3.0f));
    b[13] = set1(-0.4570457994644658f) * x * four_zz;
    b[14] = set1(1.445305721320277f) * z * (xx - yy);
    b[15] = set1(-0.5900435899266435f) * x * (xx - set1(3.0f) * yy);
}

// Gradient to the unit direction from the gradients `g` to the basis functions.
static inline Vec3 sh_basis_backward(Vec3 d, int count, const F16* g) {
    Vec3 r = {zero(), zero(), zero()};
    if (count < 4) return r;
    const F16 x = d.x, y = d.y, z = d.z;
    const F16 k1 = set1(0.48860251190291987f);
    r.x = zero() - k1 * g[3];
    r.y = zero() - k1 * g[1];
    r.z = k1 * g[2];
    if (count < 9) return r;
    const F16 k2 = set1(1.0925484305920792f);
    const F16 g4 = k2 * g[4], g5 = k2 * g[5], g7 = k2 * g[7];
    const F16 g8 = set1(2 * 0.5462742152960396f) * g[8];
    r.x = r.x + fma(g4, y, fms(g8, x, g7 * z));
    r.y = r.y + fms(g4, x, fma(g5, z, g8 * y));
    r.z = r.z + fms(set1(2 * 0.9461746957575601f) * g[6], z, fma(g5, y, g7 * x));
    if (count < 16) return r;
    const F16 xx = x * x, yy = y * y, zz = z * z, xy = x * y, yz = y * z, xz = x * z;
    const F16 k3 = set1(0.5900435899266435f), three = set1(3.0f), two = set1(2.0f);
    const F16 g9 = k3 * g[9], g15 = k3 * g[15], g10 = set1(2.890611442640554f) * g[10];
    const F16 g11 = set1(0.4570457994644658f) * g[11], g13 = set1(0.4570457994644658f) * g[13];
    const F16 g12 = set1(0.3731763325901154f) * g[12], g14 = set1(1.445305721320277f) * g[14];
    const F16 four_zz = fms(set1(5.0f), zz, set1(1.0f)), ten = set1(10.0f);
    const F16 difference = three * (yy - xx);
    r.x = r.x + fma(g10, yz, fma(g15, difference, fms(two * g14, xz, fma(set1(6.0f) * g9, xy, g13 * four_zz))));
    r.y = r.y + fma(g10, xz, fma(g9, difference, fms(set1(6.0f) * g15, xy, fma(two * g14, yz, g11 * four_zz))));
    r.z = r.z + fma(g10, xy, fma(g12, fms(set1(15.0f), zz, three), g14 * (xx - yy)));
    r.z = r.z - ten * fma(g11, yz, g13 * xz);
    return r;
}

}  // namespace
}  // namespace lrm
