// The C interface: runs the stages of a job on the caller's number of threads.
#include <cstring>
#include <new>

#include "camera.h"
#include "lists.h"
#include "parallel.h"
#include "task.h"

#define LRM_EXPORT extern "C" __attribute__((visibility("default")))

namespace lrm {

static const Stages* chosen_stages = nullptr;

static const Stages* best_stages() {
#if defined(LRM_X86)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return &kAvx512Stages;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &kAvx2Stages;
#endif
    return &kPortableStages;
}

static const Stages& stages() {
    if (!chosen_stages) chosen_stages = best_stages();
    return *chosen_stages;
}

// A number as a pair of counters, the minor one running faster.
struct Pair {
    int major, minor;
};
static Pair split(int64_t number, int count) {
    return {static_cast<int>(number / count), static_cast<int>(number % count)};
}

static uint32_t forward(const LrmTask& task, Context& context) {
    context.shape(task);
    uint32_t bad = check_cameras(task);
    if (bad) return bad;
    for (int i = 0; task.sh_coefficients && i < context.images; ++i)
        invert(task.world_to_cam + 16 * static_cast<size_t>(i), context.cam_to_world.get<double>() + 16 * i);
    parallel(task.threads, static_cast<int64_t>(task.scenes) * context.chunks, 1, [&](int64_t i) {
        const Pair at = split(i, context.chunks);
        const uint32_t b = stages().project(task, context, at.major, at.minor);
        if (b) {
#pragma omp atomic
            bad |= b;
        }
    });
    if (bad) return bad;
    if (context.images >= task.threads) {
        parallel(task.threads, context.images, 1, [&](int64_t i) {
            build_lists(context, static_cast<int>(i), 1, 1);
        });
    } else {
        for (int i = 0; i < context.images; ++i) {
            build_lists(context, i, task.threads, task.threads);
        }
    }
    parallel(task.threads, static_cast<int64_t>(context.images) * context.tiles, 2, [&](int64_t i) {
        const Pair at = split(i, context.tiles);
        stages().draw_tile(task, context, at.major, at.minor);
    });
    return 0;
}

// Sums in a fixed order, so that the number of threads leaves no trace.
static void sum_cameras(const LrmTask& task, const LrmGradients& grads, const Context& context) {
    const size_t chunk_size = kCameraSums * kLanes;
    for (int i = 0; i < context.images; ++i) {
        double sums[kCameraSums] = {};
        const float* parts = context.camera_sums.get<float>() + static_cast<size_t>(i) * context.chunks * chunk_size;
        for (int c = 0; c < context.chunks; ++c)
            for (size_t j = 0; j < chunk_size; ++j) sums[j / kLanes] += parts[c * chunk_size + j];
        float* m = grads.world_to_cam + 16 * static_cast<size_t>(i);
        for (int row = 0; row < 3; ++row) {
            for (int j = 0; j < 3; ++j) m[4 * row + j] = static_cast<float>(sums[3 * row + j]);
            m[4 * row + 3] = static_cast<float>(sums[9 + row]);
        }
        for (int j = 12; j < 16; ++j) m[j] = 0.0f;
        if (task.sh_coefficients) add_center_gradient(context.cam_to_world.get<double>() + 16 * i, sums + 12, m);
    }
}

static void sum_backgrounds(const LrmGradients& grads, const Context& context) {
    for (int i = 0; i < context.images; ++i)
        for (int c = 0; c < 3; ++c) {
            const float* parts = context.background_sums.get<float>() + 3 * static_cast<size_t>(i) * context.tiles;
            double sum = 0;
            for (int t = 0; t < context.tiles; ++t) sum += parts[3 * t + c];
            grads.background[3 * static_cast<size_t>(i) + c] = static_cast<float>(sum);
        }
}

static void backward(const LrmTask& task, const LrmGradients& grads, Context& context) {
    for (int i = 0; i < context.images; ++i) {
        Image& image = context.image[i];
        image.slot_gradients.reserve(sizeof(float) * (static_cast<size_t>(image.slots) * kSlotFloats + 4));
        image.slot_used.reserve(image.slots);
        if (image.slots) std::memset(image.slot_used.data, 0, image.slots);
    }
    context.background_sums.reserve(sizeof(float) * 3 * context.images * context.tiles);
    context.camera_sums.reserve(sizeof(float) * kCameraSums * kLanes * context.images * context.chunks);
    parallel(task.threads, static_cast<int64_t>(context.images) * context.tiles, 2, [&](int64_t i) {
        const Pair at = split(i, context.tiles);
        stages().draw_tile_backward(task, grads, context, at.major, at.minor);
    });
    parallel(task.threads, static_cast<int64_t>(task.scenes) * context.chunks, 1, [&](int64_t i) {
        const Pair at = split(i, context.chunks);
        stages().project_backward(task, grads, context, at.major, at.minor);
    });
    if (grads.world_to_cam) sum_cameras(task, grads, context);
    if (grads.background) sum_backgrounds(grads, context);
}

}  // namespace lrm

using lrm::Context;

// Draw. Returns 0, or -1 when memory ran out, or a bit per input with NaN or infinity: 1 means, 2 wxyz, 4 scales,
// 8 opacities, 16 features, 32 world_to_cam, 64 intrinsics, 128 background. On 0, *handle is what the backward pass needs; the caller releases it.
LRM_EXPORT int32_t lrm_rasterize(const LrmTask* task, void** handle) {
    *handle = nullptr;
    Context* context = nullptr;
    try {
        context = lrm::take_context();
        const uint32_t bad = lrm::forward(*task, *context);
        if (!bad) {
            *handle = context;
            return 0;
        }
        lrm::give_back(context);
        return static_cast<int32_t>(bad);
    } catch (const std::bad_alloc&) {
        delete context;
        return -1;
    }
}

// Fill the gradients that are asked for. The task must be the one that was drawn. Returns 0, or -1 without memory.
LRM_EXPORT int32_t lrm_rasterize_backward(const LrmTask* task, const LrmGradients* gradients, void* handle) {
    try {
        lrm::backward(*task, *gradients, *static_cast<Context*>(handle));
        return 0;
    } catch (const std::bad_alloc&) {
        return -1;
    }
}

LRM_EXPORT void lrm_rasterize_release(void* handle) {
    if (handle) lrm::give_back(static_cast<Context*>(handle));
}

// Name of the instruction set in use; a number 0 to 2 forces portable, avx2 or avx512 (ignored where it is missing).
// What Python lays out must be what was compiled here.
LRM_EXPORT int32_t lrm_rasterize_bytes() { return sizeof(LrmTask) + sizeof(LrmGradients); }

LRM_EXPORT const char* lrm_rasterize_instruction_set(int32_t wanted) {
    const lrm::Stages* best = lrm::best_stages();
    if (wanted == 0) lrm::chosen_stages = &lrm::kPortableStages;
#if defined(LRM_X86)
    if (wanted == 1 && best != &lrm::kPortableStages) lrm::chosen_stages = &lrm::kAvx2Stages;
#endif
    if (wanted >= 2) lrm::chosen_stages = best;
    return lrm::stages().name;
}
