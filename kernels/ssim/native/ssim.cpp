// The loss on the processor: shares the planes out between threads, and adds up what they found in a fixed order.
// LRM_X86: the sources for AVX2 and AVX-512 are compiled too, and the compiler has GCC's built-in functions.
#include "task.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <new>
#include <vector>

#define LRM_EXPORT extern "C" __attribute__((visibility("default")))

namespace lrm {
namespace {

ComparePlane choose(int32_t instructions) {
#if defined(LRM_X86)
    if (instructions == 2) return compare_plane_avx512;
    if (instructions == 1) return compare_plane_avx2;
#endif
    return compare_plane_portable;
}

Comparison prepare(const LrmLossTask& task) {
    Comparison c = {task, std::min(task.height, task.width) >= kWindow, {}, 0, 0, 0};
    double taps[kWindow], total = 0;
    for (int i = 0; i < kWindow; ++i) {
        const double distance = (i - kWindow / 2) / kSigma;
        total += taps[i] = std::exp(-0.5 * distance * distance);
    }
    for (int i = 0; i < kWindow; ++i) c.taps[i] = static_cast<float>(taps[i] / total);
    const double planes = task.planes, share = c.has_structure ? task.structure_share : 0.0;
    const double windows = planes * (task.height - kWindow + 1.0) * (task.width - kWindow + 1.0);
    c.difference_factor = static_cast<float>((1 - share) / (planes * task.height * task.width));
    c.similarity_factor = static_cast<float>(c.has_structure ? -share / windows : 0.0);
    c.stride = (task.width + kLanes - 1) / kLanes * kLanes + kLanes;
    return c;
}

void compare(const LrmLossTask& task) {
    const Comparison c = prepare(task);
    const ComparePlane compare_plane = choose(task.instructions);
    std::vector<Sums> sums(static_cast<size_t>(task.planes));
    const int threads = std::max(1, std::min(task.threads, task.planes));
    const int64_t floats = scratch_floats(c);
    const std::unique_ptr<float[]> memory(new float[static_cast<size_t>(floats * threads + kLanes)]);
    // A vector that straddles two cache lines takes twice as long.
    float* scratch = memory.get() + (-reinterpret_cast<uintptr_t>(memory.get()) % 64) / sizeof(float);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int part = 0; part < threads; ++part)
        for (int plane = part; plane < task.planes; plane += threads)
            sums[static_cast<size_t>(plane)] = compare_plane(c, plane, scratch + floats * part);
    double loss = c.has_structure ? task.structure_share : 0.0;
    for (const Sums& s : sums)
        loss += c.difference_factor * s.differences + static_cast<double>(c.similarity_factor) * s.similarities;
    *task.loss = static_cast<float>(loss);
}

}  // namespace
}  // namespace lrm

// Return the best instruction set of this processor: 0 portable, 1 AVX2, 2 AVX-512.
LRM_EXPORT int32_t lrm_loss_instructions() {
#if defined(LRM_X86)
    const bool fused = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (fused && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return 2;
    if (fused) return 1;
#endif
    return 0;
}

// Fill the loss and, where asked for, its gradients. Returns 0, or 1 where memory ran out.
LRM_EXPORT int32_t lrm_loss(const LrmLossTask* task) {
    try {
        lrm::compare(*task);
    } catch (const std::bad_alloc&) {
        return 1;
    }
    return 0;
}
