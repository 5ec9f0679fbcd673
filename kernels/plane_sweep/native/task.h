// What the stages share: the caller's description of a sweep (plain C), and what is prepared for one call.
#pragma once

#include <cstdint>

extern "C" {

// All arrays are contiguous; shapes in brackets.
struct LrmSweepTask {
    // The first `swept` of the views are swept; the others are only looked at.
    int32_t views, swept, height, width, planes;
    int32_t neighbours, silhouettes;
    // Instruction set: 0 portable, 1 AVX2, 2 AVX-512.
    int32_t threads, instructions;
    const float* images;             // [views 3 height width]
    const float* masks;              // [views 1 height width]
    const float* world_to_pixel;     // [views 3 4]
    const float* origins;            // [swept 3]
    const float* directions;         // [swept height width 3]
    const float* distances;          // [swept planes]
    const int64_t* neighbour_views;  // [swept neighbours]
    const int64_t* silhouette_views; // [swept silhouettes]
    float* costs;                    // [swept planes height width]
    float* hulls;                    // [swept planes height width]
};
}

namespace lrm {

constexpr int kLanes = 16;
constexpr float kUnseenCost = 0.25f;
constexpr float kMinDepth = 1e-6f;

// One view as seen from the rays of another: a point at distance t projects to slope(pixel) * t + start.
struct Pair {
    int32_t other;
    bool colour, silhouette;
    float start[3];
};

// What is prepared for one call. The textures are the views with a border of one repeated pixel, so that no sample
// near an edge needs a test; a texel is four floats.
struct Sweep {
    LrmSweepTask task;
    // Texels a row, and a view.
    int32_t stride;
    int64_t texels;
    // Red, green, blue, coverage.
    const float* colours;
    // Coverage of the texel, of the one to its right, of the one below, of the one below to the right.
    const float* quads;
    // Those of view i are pairs[pair_begin[i]] to pairs[pair_begin[i + 1] - 1].
    const Pair* pairs;
    const int32_t* pair_begin;
};

// Sweep up to kLanes pixels of a view, in row order from `first`. `scratch` holds 3 * planes * kLanes floats.
using SweepPixels = void (*)(const Sweep&, int view, int64_t first, int count, float* scratch);

void sweep_pixels_portable(const Sweep&, int view, int64_t first, int count, float* scratch);
void sweep_pixels_avx2(const Sweep&, int view, int64_t first, int count, float* scratch);
void sweep_pixels_avx512(const Sweep&, int view, int64_t first, int count, float* scratch);

}  // namespace lrm
