// One plane against its truth, a row at a time, so that all of it stays in the first-level cache; included after one of
// the simd_*.h of the rasterizer.
#pragma once

#include <cstring>

namespace lrm {
namespace {

// The rows in which the comparison works. `down` of the blur is done on the last kWindow rows, which lie in a ring.
struct Work {
    int64_t stride;
    // Rendering, truth, x x + y y, x y: a row of each, and zeros behind.
    float* pixels[4];
    // The same blurred along the row; a ring of each.
    float* blurred[4];
    // Slopes of the similarity to the blurred x, x x and x y; a ring of each, with kLanes zeros before every row.
    float* slopes[3];
    // The slopes blurred along the column, likewise.
    float* sums[3];
    // Rendering and truth of the row whose gradient is due.
    float *due, *due_truth;

    Work(float* memory, int64_t stride) : stride(stride) {
        const auto take = [&](int64_t rows) {
            float* start = memory;
            memory += rows * stride;
            return start;
        };
        for (float*& row : pixels) row = take(1);
        for (float*& ring : blurred) ring = take(kWindow);
        for (float*& ring : slopes) ring = take(kWindow);
        for (float*& row : sums) row = take(1);
        due = take(1), due_truth = take(1);
    }
    int64_t in_ring(int row) const { return (row + kWindow) % kWindow * stride; }
};

// A copy of the window's taps, of which the compiler knows that no row overwrites it.
struct Taps {
    float at[kWindow];
    explicit Taps(const Comparison& c) { std::memcpy(at, c.taps, sizeof at); }
    F16 operator[](int tap) const { return set1(at[tap]); }
};

// Read a row of the plane and blur it along the row.
static inline void blur_row(const Comparison& c, const float* x, const float* y, Work& work, int row) {
    const size_t bytes = sizeof(float) * static_cast<size_t>(c.task.width);
    std::memcpy(work.pixels[0], x, bytes);
    std::memcpy(work.pixels[1], y, bytes);
    for (int at = 0; at < c.task.width; at += kLanes) {
        const F16 a = load(work.pixels[0] + at), b = load(work.pixels[1] + at);
        store(work.pixels[2] + at, fma(a, a, b * b));
        store(work.pixels[3] + at, a * b);
    }
    const int64_t to = work.in_ring(row);
    const Taps taps(c);
    for (int at = 0; at < c.task.width - kWindow + 1; at += kLanes) {
        F16 sums[4];
        for (int map = 0; map < 4; ++map) sums[map] = taps[0] * load(work.pixels[map] + at);
        for (int tap = 1; tap < kWindow; ++tap)
            for (int map = 0; map < 4; ++map)
                sums[map] = fma(taps[tap], load(work.pixels[map] + at + tap), sums[map]);
        for (int map = 0; map < 4; ++map) store(work.blurred[map] + to + at, sums[map]);
    }
}

// Blur rings along the column, at `at` of the row: entry `tap` of `rows` says where the row of that tap is.
template <int maps>
static inline void blur_column(const Taps& taps, float* const (&rings)[maps], const int64_t* rows, int at,
                               F16 (&sums)[maps]) {
    for (int map = 0; map < maps; ++map) sums[map] = taps[0] * load(rings[map] + rows[0] + at);
    for (int tap = 1; tap < kWindow; ++tap)
        for (int map = 0; map < maps; ++map)
            sums[map] = fma(taps[tap], load(rings[map] + rows[tap] + at), sums[map]);
}

// The similarity where the window begins in this row, and its slopes. Returns the sum over the row, lane by lane.
static inline F16 similarities(const Comparison& c, Work& work, int row) {
    int64_t rows[kWindow];
    for (int tap = 0; tap < kWindow; ++tap) rows[tap] = work.in_ring(row + tap);
    const F16 two = set1(2.0f), one = set1(1.0f), c1 = set1(kC1), c2 = set1(kC2);
    const int width = c.task.width - kWindow + 1;
    const int64_t to = work.in_ring(row) + kLanes;
    const Taps taps(c);
    F16 sum = zero();
    for (int at = 0; at < width; at += kLanes) {
        F16 means[4];
        blur_column<4>(taps, work.blurred, rows, at, means);
        const F16 x = means[0], y = means[1], both = two * x * y, squares = fma(x, x, y * y);
        const F16 brightness = both + c1, structure = fma(two, means[3], c2 - both);
        const F16 bright = one / (squares + c1), structured = one / ((means[2] - squares) + c2);
        const F16 inverse = bright * structured, similarity = brightness * structure * inverse;
        const M16 valid = mask_from_bits(width - at < kLanes ? (1u << (width - at)) - 1u : 0xffffu);
        sum = sum + select(valid, similarity);
        if (!c.task.gradients) continue;
        const F16 by_x = fma(y * inverse, structure - brightness, x * similarity * (structured - bright));
        store(work.slopes[0] + to + at, select(valid, two * by_x));
        store(work.slopes[1] + to + at, select(valid, zero() - similarity * structured));
        store(work.slopes[2] + to + at, select(valid, two * brightness * inverse));
    }
    return sum;
}

// The gradient to a row of the rendering. Returns the sum of absolute differences, lane by lane.
static inline F16 finish_row(const Comparison& c, const float* x, const float* y, float* gradient, Work& work,
                             int row) {
    const int width = c.task.width;
    const size_t bytes = sizeof(float) * static_cast<size_t>(width);
    std::memcpy(work.due, x, bytes);
    std::memcpy(work.due_truth, y, bytes);
    int64_t rows[kWindow];
    for (int tap = 0; tap < kWindow; ++tap) rows[tap] = work.in_ring(row - tap) + kLanes;
    const Taps taps(c);
    for (int at = 0; gradient && c.has_structure && at < width; at += kLanes) {
        F16 sums[3];
        blur_column<3>(taps, work.slopes, rows, at, sums);
        for (int map = 0; map < 3; ++map) store(work.sums[map] + kLanes + at, sums[map]);
    }
    const F16 factor = set1(c.difference_factor), share = set1(c.similarity_factor), two = set1(2.0f);
    F16 sum = zero();
    for (int at = 0; at < width; at += kLanes) {
        const F16 a = load(work.due + at), b = load(work.due_truth + at), difference = a - b;
        sum = sum + max(difference, zero() - difference);
        if (!gradient) continue;
        F16 value = select(a > b, factor) - select(b > a, factor);
        if (c.has_structure) {
            F16 sums[3] = {zero(), zero(), zero()};
            for (int tap = 0; tap < kWindow; ++tap)
                for (int map = 0; map < 3; ++map)
                    sums[map] = fma(taps[tap], load(work.sums[map] + kLanes + at - tap), sums[map]);
            value = fma(share, fma(two * a, sums[1], fma(b, sums[2], sums[0])), value);
        }
        store(work.due + at, value);
    }
    if (gradient) {
        std::memcpy(gradient, work.due, bytes);
        // Behind the pixels there must be zeros again.
        std::memset(work.due + width, 0, sizeof(float) * static_cast<size_t>(work.stride - width));
    }
    return sum;
}

static Sums compare_plane(const Comparison& c, int plane, float* scratch) {
    const LrmLossTask& task = c.task;
    const int64_t pixels = static_cast<int64_t>(task.height) * task.width, start = plane * pixels;
    std::memset(scratch, 0, sizeof(float) * static_cast<size_t>(scratch_floats(c)));
    Work work(scratch, c.stride);
    alignas(64) double differences[kLanes] = {}, similar[kLanes] = {};
    const auto add = [](double* sums, F16 values) {
        alignas(64) float lanes[kLanes];
        store(lanes, values);
        for (int lane = 0; lane < kLanes; ++lane) sums[lane] += lanes[lane];
    };
    // A row can be finished when the windows that begin in it and in the ten before are known.
    const int late = c.has_structure ? kWindow - 1 : 0;
    for (int row = 0; row < task.height + late; ++row) {
        const int64_t at = start + static_cast<int64_t>(row) * task.width, due = at - late * task.width;
        if (c.has_structure && row < task.height) blur_row(c, task.images + at, task.truths + at, work, row);
        if (row < late) continue;
        if (c.has_structure && row < task.height) add(similar, similarities(c, work, row - late));
        if (row >= task.height)
            for (float* ring : work.slopes)
                std::memset(ring + work.in_ring(row - late), 0, sizeof(float) * static_cast<size_t>(work.stride));
        float* gradient = task.gradients ? task.gradients + due : nullptr;
        add(differences, finish_row(c, task.images + due, task.truths + due, gradient, work, row - late));
    }
    Sums sums = {};
    for (int lane = 0; lane < kLanes; ++lane) {
        sums.differences += differences[lane];
        sums.similarities += similar[lane];
    }
    return sums;
}

}  // namespace
}  // namespace lrm
