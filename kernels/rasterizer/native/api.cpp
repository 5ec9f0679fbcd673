// The C interface: runs the stages of a job on the caller's number of threads.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(_OPENMP)
#include <omp.h>
#endif

#include "task.h"

#define LRM_EXPORT extern "C" __attribute__((visibility("default")))

namespace lrm {

constexpr size_t kHugePage = size_t{1} << 21;

static void* allocate_aligned(size_t bytes) {
    const size_t alignment = bytes >= kHugePage ? kHugePage : 64;
    bytes = (bytes + alignment - 1) / alignment * alignment;
    void* p = std::aligned_alloc(alignment, bytes);
    if (!p) throw std::bad_alloc();
#if defined(__linux__)
    // Large pages: faulting in 4 KB at a time costs more than the arithmetic on them.
    if (bytes >= kHugePage) madvise(p, bytes, MADV_HUGEPAGE);
#endif
    return p;
}

Buffer::~Buffer() { std::free(data); }

void Buffer::reserve(size_t wanted, size_t keep) {
    if (wanted <= bytes) return;
    const size_t grown = keep || bytes ? wanted + wanted / 4 : wanted;
    void* p = allocate_aligned(grown);
    if (keep) std::memcpy(p, data, keep);
    std::free(data);
    data = p;
    bytes = grown;
}

void Part::grow(uint32_t more) {
    if (static_cast<uint64_t>(count) + more > 0xf0000000u) throw std::bad_alloc();
    entries.reserve((static_cast<size_t>(count) + more) * 2 * sizeof(Entry), count * sizeof(Entry));
    capacity = static_cast<uint32_t>(std::min<size_t>(entries.bytes / sizeof(Entry), 0xffffffffu));
}

Image::~Image() { delete[] parts; }
Context::~Context() { delete[] image; }

void Context::shape(const LrmTask& task) {
    images = task.scenes * task.views;
    blocks = (task.gaussians + kLanes - 1) / kLanes;
    chunks = (blocks + kChunkBlocks - 1) / kChunkBlocks;
    tiles_x = (task.width + kTile - 1) / kTile;
    tiles_y = (task.height + kTile - 1) / kTile;
    tiles = tiles_x * tiles_y;
    const size_t all_records = images * records_per_image(), all_pixels = images * pixels_per_image();
    records.reserve(all_records * sizeof(Record));
    chunk_counts.reserve(sizeof(uint32_t) * images * chunks);
    block_masks.reserve(sizeof(uint16_t) * images * blocks);
    block_starts.reserve(sizeof(uint32_t) * images * blocks);
    record_slots.reserve(2 * sizeof(uint32_t) * all_records);
    for (Buffer* b : {&transmittance, &ends, &alpha, &depth}) b->reserve(sizeof(float) * all_pixels);
    if (image_capacity < images) {
        delete[] image;
        image = nullptr;
        image = new Image[images];
        image_capacity = images;
    }
}

static std::mutex pool_mutex;
static Context* pool = nullptr;

static Context* take_context() {
    std::lock_guard<std::mutex> lock(pool_mutex);
    if (!pool) return new Context;
    Context* c = pool;
    pool = c->next;
    c->next = nullptr;
    return c;
}

static void give_back(Context* c) {
    std::lock_guard<std::mutex> lock(pool_mutex);
    c->next = pool;
    pool = c;
}

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

// Call body(i) for 0 <= i < count on the given number of threads; what was thrown is thrown again here.
template <class Body>
static void parallel(int threads, int64_t count, int grain, Body body) {
    if (threads <= 1 || count <= 1) {
        for (int64_t i = 0; i < count; ++i) body(i);
        return;
    }
    bool failed = false;
#pragma omp parallel for num_threads(threads) schedule(dynamic, grain)
    for (int64_t i = 0; i < count; ++i) {
        try {
            body(i);
        } catch (const std::bad_alloc&) {
#pragma omp atomic write
            failed = true;
        }
    }
    if (failed) throw std::bad_alloc();
    (void)grain;
}

constexpr int kDigitBits = 11;
constexpr int kDigits = 1 << kDigitBits;

// List the visible records of an image by depth, ties by index: a stable radix sort of (depth bits, record).
static void sort_by_depth(Context& context, int index) {
    Image& image = context.image[index];
    const uint32_t* counts = context.chunk_counts.get<uint32_t>() + static_cast<size_t>(index) * context.chunks;
    const Record* records = context.records.get<Record>() + index * context.records_per_image();
    uint32_t total = 0;
    for (int c = 0; c < context.chunks; ++c) total += counts[c];
    image.visible = total;
    image.order.reserve(sizeof(uint64_t) * total);
    image.order_scratch.reserve(sizeof(uint64_t) * total);
    uint64_t *from = image.order.get<uint64_t>(), *to = image.order_scratch.get<uint64_t>();
    uint32_t least = 0xffffffffu, most = 0, n = 0;
    for (int c = 0; c < context.chunks; ++c)
        for (uint32_t i = 0; i < counts[c]; ++i) {
            const uint32_t record = static_cast<uint32_t>(c) * kChunkGaussians + i;
            uint32_t key;
            std::memcpy(&key, &records[record].depth, 4);
            least = std::min(least, key), most = std::max(most, key);
            from[n++] = static_cast<uint64_t>(key) << 32 | record;
        }
    uint32_t histogram[kDigits];
    for (int shift = 0; n && shift < 32 && (most - least) >> shift; shift += kDigitBits) {
        std::memset(histogram, 0, sizeof histogram);
        for (uint32_t i = 0; i < n; ++i) ++histogram[((static_cast<uint32_t>(from[i] >> 32) - least) >> shift) & (kDigits - 1)];
        uint32_t sum = 0;
        for (uint32_t& h : histogram) {
            const uint32_t here = h;
            h = sum;
            sum += here;
        }
        for (uint32_t i = 0; i < n; ++i)
            to[histogram[((static_cast<uint32_t>(from[i] >> 32) - least) >> shift) & (kDigits - 1)]++] = from[i];
        std::swap(from, to);
    }
    if (from != image.order.get<uint64_t>()) {
        std::swap(image.order.data, image.order_scratch.data);
        std::swap(image.order.bytes, image.order_scratch.bytes);
    }
}

// Build the tile lists of an image in `num_parts` parts of its depth order.
static void build_lists(const LrmTask& task, Context& context, int index, int num_parts, int threads) {
    Image& image = context.image[index];
    if (image.num_parts < num_parts) {
        delete[] image.parts;
        image.parts = nullptr;
        image.parts = new Part[num_parts];
        image.num_parts = num_parts;
    }
    const uint32_t tiles = static_cast<uint32_t>(context.tiles);
    const auto start_of = [&](int64_t part) { return static_cast<uint32_t>(static_cast<uint64_t>(image.visible) * part / num_parts); };
    parallel(threads, num_parts, 1, [&](int64_t p) {
        Part& part = image.parts[p];
        part.tile_counts.reserve(sizeof(uint32_t) * tiles);
        std::memset(part.tile_counts.data, 0, sizeof(uint32_t) * tiles);
        stages().bin(task, context, index, start_of(p), start_of(p + 1), part);
    });
    image.tile_begin.reserve(sizeof(uint32_t) * (tiles + 1));
    uint32_t* tile_begin = image.tile_begin.get<uint32_t>();
    uint64_t total = 0;
    for (int p = 0; p < num_parts; ++p) total += image.parts[p].count;
    if (total >= 0xffffffffu) throw std::bad_alloc();
    uint32_t sum = 0;
    for (uint32_t t = 0; t < tiles; ++t) {
        tile_begin[t] = sum;
        for (int p = 0; p < num_parts; ++p) {
            uint32_t& count = image.parts[p].tile_counts.get<uint32_t>()[t];
            const uint32_t here = count;
            count = sum;
            sum += here;
        }
    }
    tile_begin[tiles] = sum;
    image.slots = total;
    image.slot_record.reserve(sizeof(uint32_t) * total);
    image.slot_blocks.reserve(sizeof(uint16_t) * total);
    image.tile_slots.reserve(sizeof(uint32_t) * total);
    parallel(threads, num_parts, 1, [&](int64_t p) {
        Part& part = image.parts[p];
        uint32_t base = 0;
        for (int64_t q = 0; q < p; ++q) base += image.parts[q].count;
        uint32_t* next = part.tile_counts.get<uint32_t>();
        const Entry* entries = part.entries.get<Entry>();
        for (uint32_t i = 0; i < part.count; ++i) {
            image.slot_record.get<uint32_t>()[base + i] = entries[i].record;
            image.slot_blocks.get<uint16_t>()[base + i] = entries[i].blocks;
            image.tile_slots.get<uint32_t>()[next[entries[i].tile]++] = base + i;
        }
        if (!base) return;
        const uint64_t* order = image.order.get<uint64_t>();
        uint32_t* ranges = context.record_slots.get<uint32_t>() + 2 * index * context.records_per_image();
        for (uint32_t i = start_of(p); i < start_of(p + 1); ++i) ranges[2 * (order[i] & 0xffffffffu)] += base;
    });
}

static uint32_t forward(const LrmTask& task, Context& context) {
    context.shape(task);
    uint32_t bad = 0;
    parallel(task.threads, static_cast<int64_t>(task.scenes) * context.chunks, 1, [&](int64_t i) {
        const uint32_t b = stages().project(task, context, static_cast<int>(i / context.chunks), static_cast<int>(i % context.chunks));
        if (b) {
#pragma omp atomic
            bad |= b;
        }
    });
    if (bad) return bad;
    if (context.images >= task.threads) {
        parallel(task.threads, context.images, 1, [&](int64_t i) {
            sort_by_depth(context, static_cast<int>(i));
            build_lists(task, context, static_cast<int>(i), 1, 1);
        });
    } else {
        for (int i = 0; i < context.images; ++i) {
            sort_by_depth(context, i);
            build_lists(task, context, i, task.threads, task.threads);
        }
    }
    parallel(task.threads, static_cast<int64_t>(context.images) * context.tiles, 2, [&](int64_t i) {
        stages().draw_tile(task, context, static_cast<int>(i / context.tiles), static_cast<int>(i % context.tiles));
    });
    return 0;
}

// Sums in a fixed order, so that the number of threads leaves no trace.
static void sum_cameras(const LrmTask& task, const LrmGradients& grads, const Context& context) {
    for (int i = 0; i < context.images; ++i) {
        double sums[kCameraSums] = {};
        const float* parts = context.camera_sums.get<float>() + static_cast<size_t>(i) * context.chunks * kCameraSums * kLanes;
        for (int c = 0; c < context.chunks; ++c)
            for (int s = 0; s < kCameraSums; ++s)
                for (int lane = 0; lane < kLanes; ++lane) sums[s] += parts[(static_cast<size_t>(c) * kCameraSums + s) * kLanes + lane];
        if (grads.world_to_cam) {
            float* m = grads.world_to_cam + 16 * static_cast<size_t>(i);
            for (int row = 0; row < 3; ++row) {
                for (int column = 0; column < 3; ++column) m[4 * row + column] = static_cast<float>(sums[3 * row + column]);
                m[4 * row + 3] = static_cast<float>(sums[9 + row]);
                m[12 + row] = 0.0f;
            }
            m[15] = 0.0f;
        }
        if (grads.centers)
            for (int c = 0; c < 3; ++c) grads.centers[3 * static_cast<size_t>(i) + c] = static_cast<float>(sums[12 + c]);
    }
    (void)task;
}

static void backward(const LrmTask& task, const LrmGradients& grads, Context& context) {
    for (int i = 0; i < context.images; ++i)
        context.image[i].slot_gradients.reserve(sizeof(float) * (context.image[i].slots * kSlotFloats + 4));
    context.background_sums.reserve(sizeof(float) * 3 * context.images * context.tiles);
    context.camera_sums.reserve(sizeof(float) * kCameraSums * kLanes * context.images * context.chunks);
    parallel(task.threads, static_cast<int64_t>(context.images) * context.tiles, 2, [&](int64_t i) {
        stages().draw_tile_backward(task, grads, context, static_cast<int>(i / context.tiles), static_cast<int>(i % context.tiles));
    });
    parallel(task.threads, static_cast<int64_t>(task.scenes) * context.chunks, 1, [&](int64_t i) {
        stages().project_backward(task, grads, context, static_cast<int>(i / context.chunks), static_cast<int>(i % context.chunks));
    });
    if (grads.world_to_cam || grads.centers) sum_cameras(task, grads, context);
    if (!grads.background) return;
    for (int i = 0; i < context.images; ++i)
        for (int c = 0; c < 3; ++c) {
            double sum = 0;
            for (int t = 0; t < context.tiles; ++t) sum += context.background_sums.get<float>()[3 * (static_cast<size_t>(i) * context.tiles + t) + c];
            grads.background[3 * static_cast<size_t>(i) + c] = static_cast<float>(sum);
        }
}
}  // namespace lrm

using lrm::Context;

// Draw. Returns 0, or -1 when memory ran out, or a bit per input with NaN or infinity: 1 means, 2 wxyz, 4 scales,
// 8 opacities, 16 features. On 0, *handle is what the backward pass needs; the caller releases it.
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
LRM_EXPORT const char* lrm_rasterize_instruction_set(int32_t wanted) {
    const lrm::Stages* best = lrm::best_stages();
    if (wanted == 0) lrm::chosen_stages = &lrm::kPortableStages;
#if defined(LRM_X86)
    if (wanted == 1 && best != &lrm::kPortableStages) lrm::chosen_stages = &lrm::kAvx2Stages;
#endif
    if (wanted >= 2) lrm::chosen_stages = best;
    return lrm::stages().name;
}
