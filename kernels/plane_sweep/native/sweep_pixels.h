// The sweep of sixteen pixels, for whatever instruction set the including file has chosen.
#pragma once

#include <limits>

namespace lrm {
namespace {

// Planes whose samples are under way together.
constexpr int kPlanesAtOnce = 16;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Vector3 {
    F16 x, y, z;
};

// Read `count` values that lie `step` apart; the remaining lanes repeat the last one.
inline F16 load_lanes(const float* p, int64_t step, int count) {
    alignas(64) float lanes[kLanes];
    for (int i = 0; i < kLanes; ++i) lanes[i] = p[(i < count ? i : count - 1) * step];
    return load(lanes);
}

inline F16 dot(const float* row, const Vector3& v) { return fma(set1(row[0]), v.x, fma(set1(row[1]), v.y, set1(row[2]) * v.z)); }

// Sixteen lines of points, one a pixel, as another view sees them: slope * t + start, in (x z, y z, z).
struct Lines {
    Vector3 slope, start;
    F16 width, height;

    Lines(const Sweep& sweep, const Pair& pair, const Vector3& directions)
        : width(set1(static_cast<float>(sweep.task.width))), height(set1(static_cast<float>(sweep.task.height))) {
        const float* matrix = sweep.task.world_to_pixel + 12 * pair.other;
        slope = {dot(matrix, directions), dot(matrix + 4, directions), dot(matrix + 8, directions)};
        start = {set1(pair.start[0]), set1(pair.start[1]), set1(pair.start[2])};
    }

    // Return which of the points at distance t the view sees, and where in its texture they lie.
    M16 at(float distance, int32_t stride, Texels& texels) const {
        const F16 t = set1(distance), half = set1(0.5f);
        const F16 z = fma(slope.z, t, start.z);
        const F16 per_depth = reciprocal(z);
        const F16 x = fma(slope.x, t, start.x) * per_depth;
        const F16 y = fma(slope.y, t, start.y) * per_depth;
        const M16 seen = (z > set1(kMinDepth)) & (x >= zero()) & (x < width) & (y >= zero()) & (y < height);
        // The border of one texel moves everything by one, pixel centres by half.
        locate(select(seen, x) + half, select(seen, y) + half, stride, texels);
        return seen;
    }
};

// Fold what one other view shows into `best`, `second` and `hull`, each [planes kLanes].
template <bool kColour, bool kSilhouette>
inline void compare(const Sweep& sweep, const Pair& pair, const Vector3& directions, const Vector3& colour,
                    const float* distances, float* best, float* second, float* hull) {
    const F16 third = set1(1.0f / 3.0f), infinity = set1(kInfinity);
    const Lines lines(sweep, pair, directions);
    const float* texture = (kColour ? sweep.colours : sweep.quads) + 4 * sweep.texels * pair.other;
    Texels texels[kPlanesAtOnce];
    M16 seen[kPlanesAtOnce];
    int planes[kPlanesAtOnce];
    for (int plane = 0; plane < sweep.task.planes;) {
        // First where, then what: so the loads of one plane need not wait for the arithmetic of the same one.
        int count = 0;
        for (; plane < sweep.task.planes && count < kPlanesAtOnce; ++plane) {
            // No silhouette can take away what is gone already.
            const M16 left = load(hull + plane * kLanes) > zero();
            if (!kColour && !any(left)) continue;
            seen[count] = lines.at(distances[plane], sweep.stride, texels[count]);
            planes[count] = plane * kLanes;
            count += any(kColour ? seen[count] : seen[count] & left);
        }
        for (int i = 0; i < count; ++i) {
            F16 coverage;
            if (kColour) {
                F16 sampled[4];
                bilinear_colours(texture, sweep.stride, texels[i], sampled);
                const F16 apart = absolute(sampled[0] - colour.x) + absolute(sampled[1] - colour.y) +
                                  absolute(sampled[2] - colour.z);
                const F16 cost = select(seen[i], apart * third, infinity), least = load(best + planes[i]);
                store(second + planes[i], min(load(second + planes[i]), max(least, cost)));
                store(best + planes[i], min(least, cost));
                coverage = sampled[3];
            } else {
                coverage = bilinear_quads(texture, texels[i]);
            }
            if (kSilhouette) {
                const F16 before = load(hull + planes[i]);
                store(hull + planes[i], select(seen[i], min(before, coverage), before));
            }
        }
    }
}

// Write `count` lanes.
inline void store_lanes(float* p, F16 a, int count) {
    if (count == kLanes) return store(p, a);
    alignas(64) float lanes[kLanes];
    store(lanes, a);
    for (int i = 0; i < count; ++i) p[i] = lanes[i];
}

inline void sweep_pixels(const Sweep& sweep, int view, int64_t first, int count, float* scratch) {
    const auto& task = sweep.task;
    const int64_t pixels = static_cast<int64_t>(task.height) * task.width;
    const int64_t lanes = static_cast<int64_t>(task.planes) * kLanes;
    float *best = scratch, *second = best + lanes, *hull = second + lanes;
    const F16 infinity = set1(kInfinity);
    for (int64_t i = 0; i < lanes; i += kLanes) {
        store(best + i, infinity);
        store(second + i, infinity);
        store(hull + i, set1(1.0f));
    }
    const float* ray = task.directions + 3 * (view * pixels + first);
    const float* image = task.images + 3 * view * pixels + first;
    const float* distances = task.distances + static_cast<int64_t>(view) * task.planes;
    const Vector3 directions = {load_lanes(ray, 3, count), load_lanes(ray + 1, 3, count), load_lanes(ray + 2, 3, count)};
    const Vector3 colour = {load_lanes(image, 1, count), load_lanes(image + pixels, 1, count),
                            load_lanes(image + 2 * pixels, 1, count)};
    for (int32_t i = sweep.pair_begin[view]; i < sweep.pair_begin[view + 1]; ++i) {
        const Pair& pair = sweep.pairs[i];
        const auto fold = !pair.colour     ? compare<false, true>
                          : pair.silhouette ? compare<true, true>
                                            : compare<true, false>;
        fold(sweep, pair, directions, colour, distances, best, second, hull);
    }
    const int64_t out = static_cast<int64_t>(view) * task.planes * pixels + first;
    for (int plane = 0; plane < task.planes; ++plane) {
        const F16 least = load(best + plane * kLanes), next = load(second + plane * kLanes);
        const F16 cost = select(next < infinity, (least + next) * set1(0.5f), least);
        store_lanes(task.costs + out + plane * pixels, select(least < infinity, cost, set1(kUnseenCost)), count);
        store_lanes(task.hulls + out + plane * pixels, load(hull + plane * kLanes), count);
    }
}

}  // namespace
}  // namespace lrm
