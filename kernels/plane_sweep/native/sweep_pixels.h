// The sweep of sixteen pixels, for whatever instruction set the including file has chosen.
#pragma once

namespace lrm {
namespace {

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

inline F16 apart(F16 a, F16 b) { return max(a - b, b - a); }

// Fold what one other view shows into `best`, `second` and `hull`, each [planes kLanes].
template <bool kColour, bool kSilhouette>
inline void compare(const Sweep& sweep, const Pair& pair, const Vector3& directions, const Vector3& colour,
                    const float* distances, float* best, float* second, float* hull) {
    const float* matrix = sweep.task.world_to_pixel + 12 * pair.other;
    const Vector3 slope = {dot(matrix, directions), dot(matrix + 4, directions), dot(matrix + 8, directions)};
    const Vector3 start = {set1(pair.start[0]), set1(pair.start[1]), set1(pair.start[2])};
    const F16 width = set1(static_cast<float>(sweep.task.width)), height = set1(static_cast<float>(sweep.task.height));
    const F16 half = set1(0.5f), third = set1(1.0f / 3.0f), infinity = set1(__builtin_inff());
    const float* texture = (kColour ? sweep.colours : sweep.quads) + 4 * sweep.texels * pair.other;
    for (int plane = 0; plane < sweep.task.planes; ++plane, best += kLanes, second += kLanes, hull += kLanes) {
        const F16 t = set1(distances[plane]);
        const F16 z = fma(slope.z, t, start.z);
        const F16 per_depth = reciprocal(z);
        F16 x = fma(slope.x, t, start.x) * per_depth;
        F16 y = fma(slope.y, t, start.y) * per_depth;
        M16 seen = (z > set1(kMinDepth)) & (x >= zero()) & (x < width) & (y >= zero()) & (y < height);
        // No silhouette can take away what is gone already.
        if (!kColour) seen = seen & (load(hull) > zero());
        if (!any(seen)) continue;
        // The border of one texel moves everything by one, pixel centres by half.
        const Texels texels = locate(select(seen, x) + half, select(seen, y) + half, sweep.stride);
        F16 coverage;
        if (kColour) {
            F16 sampled[4];
            bilinear_colours(texture, sweep.stride, texels, sampled);
            F16 cost = (apart(sampled[0], colour.x) + apart(sampled[1], colour.y) + apart(sampled[2], colour.z)) * third;
            cost = select(seen, cost, infinity);
            const F16 least = load(best);
            store(second, min(load(second), max(least, cost)));
            store(best, min(least, cost));
            coverage = sampled[3];
        } else {
            coverage = bilinear_quads(texture, texels);
        }
        if (kSilhouette) store(hull, select(seen, min(load(hull), coverage), load(hull)));
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
    const F16 infinity = set1(__builtin_inff());
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
