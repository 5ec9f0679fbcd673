// Bilinear samples at sixteen places, one after the other.
#pragma once

namespace lrm {
namespace {

struct Texels {
    // Position of the upper left texel, in texels; weights of the right and of the lower texels.
    int32_t index[16];
    float right[16];
    float below[16];
};

// x and y are not negative.
inline void locate(F16 x, F16 y, int32_t stride, Texels& t) {
    for (int i = 0; i < 16; ++i) {
        const int32_t column = static_cast<int32_t>(x.v[i]), row = static_cast<int32_t>(y.v[i]);
        t.index[i] = row * stride + column;
        t.right[i] = x.v[i] - static_cast<float>(column);
        t.below[i] = y.v[i] - static_cast<float>(row);
    }
}

inline F16 absolute(F16 a) {
    for (float& lane : a.v) lane = std::fabs(lane);
    return a;
}

inline float mix(float from, float to, float share) { return from + (to - from) * share; }

inline void bilinear_colours(const float* texture, int32_t stride, const Texels& t, F16 out[4]) {
    for (int i = 0; i < 16; ++i) {
        const float* p = texture + 4 * static_cast<int64_t>(t.index[i]);
        const float* q = p + 4 * static_cast<int64_t>(stride);
        for (int c = 0; c < 4; ++c)
            out[c].v[i] = mix(mix(p[c], q[c], t.below[i]), mix(p[c + 4], q[c + 4], t.below[i]), t.right[i]);
    }
}

inline F16 bilinear_quads(const float* quads, const Texels& t) {
    F16 r;
    for (int i = 0; i < 16; ++i) {
        const float* p = quads + 4 * static_cast<int64_t>(t.index[i]);
        r.v[i] = mix(mix(p[0], p[1], t.right[i]), mix(p[2], p[3], t.right[i]), t.below[i]);
    }
    return r;
}

}  // namespace
}  // namespace lrm
