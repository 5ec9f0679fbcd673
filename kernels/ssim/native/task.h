// The caller's description of a comparison (plain C), and the stage that exists once per instruction set.
#pragma once

#include <cstdint>

extern "C" {

// `planes` images of one channel are compared with as many others. All arrays are contiguous; shapes in brackets.
struct LrmLossTask {
    int32_t planes, height, width;
    // Instruction set: 0 portable, 1 AVX2, 2 AVX-512.
    int32_t threads, instructions;
    float structure_share;
    const float* images;  // [planes height width]
    const float* truths;  // [planes height width]
    float* gradients;     // [planes height width], of the loss to the images, or null
    float* loss;          // []
};
}

namespace lrm {

constexpr int kLanes = 16, kWindow = 11;
constexpr double kSigma = 1.5;
constexpr float kC1 = 0.01f * 0.01f, kC2 = 0.03f * 0.03f;

struct Sums {
    double differences, similarities;
};

// What all planes of a task share.
struct Comparison {
    LrmLossTask task;
    bool has_structure;
    float taps[kWindow];
    // Factors of the sums over all planes, in the loss.
    float difference_factor, similarity_factor;
    // Floats a row, with room for a vector that begins at the last pixel.
    int64_t stride;
};

// Floats that the comparison of a plane works on: rows of pixels 6, blurred rows 4, slopes 3, sums of slopes 3.
inline int64_t scratch_floats(const Comparison& c) { return c.stride * (6 + 4 * kWindow + 3 * kWindow + 3); }

// Compare one plane, and fill its gradients where they are asked for.
using ComparePlane = Sums (*)(const Comparison&, int plane, float* scratch);

Sums compare_plane_portable(const Comparison&, int plane, float* scratch);
Sums compare_plane_avx2(const Comparison&, int plane, float* scratch);
Sums compare_plane_avx512(const Comparison&, int plane, float* scratch);

}  // namespace lrm
