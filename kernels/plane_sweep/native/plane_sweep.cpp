// The plane sweep on the processor: prepares textures and pairs, then shares the pixels out between threads.
// LRM_X86: the sources for AVX2 and AVX-512 are compiled too, and the compiler has GCC's built-in functions.
#include "task.h"

#include <algorithm>
#include <memory>
#include <new>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif

#if defined(_WIN32)
#define LRM_EXPORT extern "C" __declspec(dllexport)
#else
#define LRM_EXPORT extern "C" __attribute__((visibility("default")))
#endif

namespace lrm {
namespace {

// Blocks of kLanes pixels that a thread takes at a time.
constexpr int64_t kBlocksAtOnce = 8;

int thread_index() {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

// Fill the textures of one view; return whether its coverage is 1 everywhere.
bool fill_textures(const LrmSweepTask& task, int view, int64_t stride, float* colours, float* quads) {
    const int64_t width = task.width, height = task.height, pixels = width * height;
    const float* image = task.images + 3 * view * pixels;
    const float* mask = task.masks + view * pixels;
    bool is_full = true;
    for (int64_t row = 0; row < height + 2; ++row) {
        const int64_t y = std::clamp<int64_t>(row - 1, 0, height - 1), below = std::min(row, height - 1);
        for (int64_t column = 0; column < width + 2; ++column) {
            const int64_t x = std::clamp<int64_t>(column - 1, 0, width - 1), right = std::min(column, width - 1);
            const int64_t at = y * width + x, to = 4 * (row * stride + column);
            for (int64_t c = 0; c < 3; ++c) colours[to + c] = image[c * pixels + at];
            colours[to + 3] = mask[at];
            quads[to] = mask[at];
            quads[to + 1] = mask[y * width + right];
            quads[to + 2] = mask[below * width + x];
            quads[to + 3] = mask[below * width + right];
            is_full = is_full && mask[at] == 1.0f;
        }
    }
    return is_full;
}

// Return the other views that a view is compared with, each once, those that only carve last.
std::vector<Pair> pairs_of(const LrmSweepTask& task, int view, const std::vector<uint8_t>& is_full) {
    std::vector<Pair> pairs;
    const auto add = [&](int64_t other, bool colour) {
        for (Pair& pair : pairs)
            if (pair.other == other) {
                pair.silhouette |= !colour;
                return;
            }
        const float* matrix = task.world_to_pixel + 12 * other;
        const float* origin = task.origins + 3 * view;
        Pair pair = {static_cast<int32_t>(other), colour, !colour, {}};
        for (int i = 0; i < 3; ++i) {
            double sum = matrix[4 * i + 3];
            for (int j = 0; j < 3; ++j) sum += static_cast<double>(matrix[4 * i + j]) * origin[j];
            pair.start[i] = static_cast<float>(sum);
        }
        pairs.push_back(pair);
    };
    for (int i = 0; i < task.neighbours; ++i) add(task.neighbour_views[view * task.neighbours + i], true);
    // Nearest first on entry: far silhouettes carve more, and what is carved needs no further test.
    for (int i = task.silhouettes - 1; i >= 0; --i) {
        const int64_t other = task.silhouette_views[view * task.silhouettes + i];
        if (!is_full[static_cast<size_t>(other)]) add(other, false);
    }
    return pairs;
}

SweepPixels choose(int32_t instructions) {
#if defined(LRM_X86)
    if (instructions == 2) return sweep_pixels_avx512;
    if (instructions == 1) return sweep_pixels_avx2;
#endif
    return sweep_pixels_portable;
}

void sweep_all(const LrmSweepTask& task) {
    const int views = task.views;
    const int64_t pixels = static_cast<int64_t>(task.height) * task.width;
    Sweep sweep = {task, task.width + 2, static_cast<int64_t>(task.width + 2) * (task.height + 2), {}, {}, {}, {}};
    const size_t floats = 4 * static_cast<size_t>(sweep.texels) * static_cast<size_t>(views);
    const std::unique_ptr<float[]> colours(new float[floats]), quads(new float[floats]);
    std::vector<uint8_t> is_full(static_cast<size_t>(views));
    const size_t scratch_floats = 3 * static_cast<size_t>(task.planes) * kLanes;
    const std::unique_ptr<float[]> scratch(new float[scratch_floats * static_cast<size_t>(task.threads)]);
#pragma omp parallel for num_threads(task.threads) schedule(static)
    for (int view = 0; view < views; ++view) {
        const int64_t at = 4 * sweep.texels * view;
        is_full[static_cast<size_t>(view)] =
            fill_textures(task, view, sweep.stride, colours.get() + at, quads.get() + at);
    }
    std::vector<Pair> pairs;
    std::vector<int32_t> pair_begin = {0};
    for (int view = 0; view < task.swept; ++view) {
        const std::vector<Pair> own = pairs_of(task, view, is_full);
        pairs.insert(pairs.end(), own.begin(), own.end());
        pair_begin.push_back(static_cast<int32_t>(pairs.size()));
    }
    sweep.colours = colours.get();
    sweep.quads = quads.get();
    sweep.pairs = pairs.data();
    sweep.pair_begin = pair_begin.data();
    const SweepPixels sweep_pixels = choose(task.instructions);
    const int64_t span = kBlocksAtOnce * kLanes, spans = (pixels + span - 1) / span;
#pragma omp parallel num_threads(task.threads)
    {
        float* own = scratch.get() + scratch_floats * static_cast<size_t>(thread_index());
#pragma omp for schedule(dynamic, 1)
        for (int64_t job = 0; job < spans * task.swept; ++job) {
            const int64_t begin = job % spans * span, end = std::min(begin + span, pixels);
            for (int64_t first = begin; first < end; first += kLanes)
                sweep_pixels(sweep, static_cast<int>(job / spans), first,
                             static_cast<int>(std::min<int64_t>(kLanes, end - first)), own);
        }
    }
}

}  // namespace
}  // namespace lrm

// Return the best instruction set of this processor: 0 portable, 1 AVX2, 2 AVX-512.
LRM_EXPORT int32_t lrm_sweep_instructions() {
#if defined(LRM_X86)
    const bool fused = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (fused && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return 2;
    if (fused) return 1;
#endif
    return 0;
}

// Return 0, or 1 where memory ran out. That the indices of views are in range is for the caller to check.
LRM_EXPORT int32_t lrm_plane_sweep(const LrmSweepTask* task) {
    try {
        lrm::sweep_all(*task);
    } catch (const std::bad_alloc&) {
        return 1;
    }
    return 0;
}
