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

void Bin::grow(uint32_t more) {
    if (static_cast<uint64_t>(count) + more > 0x7fffffffu) throw std::bad_alloc();
    entries.reserve((static_cast<size_t>(count) + more) * 2 * sizeof(Entry), count * sizeof(Entry));
    capacity = static_cast<uint32_t>(std::min<size_t>(entries.bytes / sizeof(Entry), 0xffffffffu));
}

Context::~Context() {
    delete[] bins;
    delete[] image;
}

template <class T>
static void reserve_array(T*& array, int32_t& capacity, int32_t wanted) {
    if (capacity >= wanted) return;
    delete[] array;
    array = nullptr;
    capacity = 0;
    array = new T[wanted];
    capacity = wanted;
}

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
    depth_bits.reserve(sizeof(uint32_t) * all_records);
    record_entries.reserve(2 * sizeof(uint32_t) * all_records);
    for (Buffer* b : {&transmittance, &ends, &alpha, &depth}) b->reserve(sizeof(float) * all_pixels);
    reserve_array(bins, bin_capacity, images * chunks);
    reserve_array(image, image_capacity, images);
}

// Memory of calls that are over, for the calls to come; more than a few are freed.
constexpr int kMaxIdle = 4;
static std::mutex pool_mutex;
static int idle = 0;
static Context* pool = nullptr;

static Context* take_context() {
    std::lock_guard<std::mutex> lock(pool_mutex);
    if (!pool) return new Context;
    Context* c = pool;
    pool = c->next;
    --idle;
    c->next = nullptr;
    return c;
}

static void give_back(Context* c) {
    {
        std::lock_guard<std::mutex> lock(pool_mutex);
        if (idle < kMaxIdle) {
            c->next = pool;
            pool = c;
            ++idle;
            return;
        }
    }
    delete c;
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

constexpr int kMaxDigitBits = 12;

// List the visible records of an image by depth, ties by index: a stable radix sort of (depth bits, record).
static void sort_by_depth(Context& context, int index) {
    Image& image = context.image[index];
    const uint32_t* counts = context.chunk_counts.get<uint32_t>() + static_cast<size_t>(index) * context.chunks;
    const uint32_t* keys = context.depth_bits.get<uint32_t>() + index * context.records_per_image();
    uint32_t total = 0, least = 0xffffffffu, most = 0;
    for (int c = 0; c < context.chunks; ++c) {
        total += counts[c];
        const uint32_t* chunk = keys + static_cast<size_t>(c) * kChunkGaussians;
        for (uint32_t i = 0; i < counts[c]; ++i) least = std::min(least, chunk[i]), most = std::max(most, chunk[i]);
    }
    image.visible = total;
    image.order.reserve(sizeof(uint64_t) * total);
    image.order_scratch.reserve(sizeof(uint64_t) * total);
    uint64_t *from = image.order.get<uint64_t>(), *to = image.order_scratch.get<uint64_t>();
    uint32_t n = 0;
    for (int c = 0; c < context.chunks; ++c) {
        const uint32_t first = static_cast<uint32_t>(c) * kChunkGaussians;
        for (uint32_t i = 0; i < counts[c]; ++i)
            from[n++] = static_cast<uint64_t>(keys[first + i] - least) << 32 | (first + i);
    }
    if (!n) return;
    int key_bits = 0;
    while (key_bits < 32 && (most - least) >> key_bits) ++key_bits;
    const int passes = (key_bits + kMaxDigitBits - 1) / kMaxDigitBits;
    const int digit_bits = passes ? (key_bits + passes - 1) / passes : 0;
    uint32_t histogram[1 << kMaxDigitBits];
    for (int pass = 0; pass < passes; ++pass) {
        const int shift = 32 + pass * digit_bits;
        const uint64_t mask = (uint64_t{1} << digit_bits) - 1;
        std::memset(histogram, 0, sizeof(uint32_t) << digit_bits);
        for (uint32_t i = 0; i < n; ++i) ++histogram[from[i] >> shift & mask];
        uint32_t sum = 0;
        for (uint64_t d = 0; d <= mask; ++d) {
            const uint32_t here = histogram[d];
            histogram[d] = sum;
            sum += here;
        }
        for (uint32_t i = 0; i < n; ++i) to[histogram[from[i] >> shift & mask]++] = from[i];
        std::swap(from, to);
    }
    if (from != image.order.get<uint64_t>()) std::swap(image.order.data, image.order_scratch.data), std::swap(image.order.bytes, image.order_scratch.bytes);
}

// Call take(record, slot, entry) for the entries of records `begin` to `end` of the depth order.
template <class Take>
static void for_each_entry(const Context& context, int index, uint32_t begin, uint32_t end, Take take) {
    constexpr uint32_t far_ahead = 24, near_ahead = 12;
    const uint64_t* order = context.image[index].order.get<uint64_t>();
    const uint32_t* ranges = context.record_entries.get<uint32_t>() + 2 * index * context.records_per_image();
    const Bin* bins = context.bins + static_cast<size_t>(index) * context.chunks;
    const auto entries_of = [&](uint32_t record) {
        return bins[record / kChunkGaussians].entries.get<Entry>() + ranges[2 * static_cast<size_t>(record)];
    };
    for (uint32_t i = begin; i < end; ++i) {
        if (i + far_ahead < end) __builtin_prefetch(ranges + 2 * static_cast<size_t>(static_cast<uint32_t>(order[i + far_ahead])));
        if (i + near_ahead < end) __builtin_prefetch(entries_of(static_cast<uint32_t>(order[i + near_ahead])));
        const uint32_t record = static_cast<uint32_t>(order[i]);
        const uint32_t* range = ranges + 2 * static_cast<size_t>(record);
        const uint32_t slot = bins[record / kChunkGaussians].first_slot + range[0];
        const Entry* entries = entries_of(record);
        for (uint32_t j = 0; j < range[1]; ++j) take(record, slot + j, entries[j]);
    }
}

// Turn the bins of an image into lists, each tile's in depth order; the order is cut in `parts` that run in parallel.
static void build_lists(Context& context, int index, int parts, int threads) {
    Image& image = context.image[index];
    Bin* bins = context.bins + static_cast<size_t>(index) * context.chunks;
    const uint32_t tiles = static_cast<uint32_t>(context.tiles);
    uint64_t slots = 0;
    for (int c = 0; c < context.chunks; ++c) {
        bins[c].first_slot = static_cast<uint32_t>(slots);
        slots += bins[c].count;
        if (slots >= 0xffffffffu) throw std::bad_alloc();
    }
    image.slots = static_cast<uint32_t>(slots);
    image.tile_begin.reserve(sizeof(uint32_t) * (tiles + 1));
    image.list.reserve(sizeof(ListEntry) * slots);
    image.taken.reserve(sizeof(BlockBits) * (slots / kBatch + tiles + 1));
    image.part_counts.reserve(sizeof(uint32_t) * tiles * parts);
    const auto counts_of = [&](int64_t part) { return image.part_counts.get<uint32_t>() + tiles * part; };
    const auto start_of = [&](int64_t part) {
        return static_cast<uint32_t>(static_cast<uint64_t>(image.visible) * part / parts);
    };
    std::memset(image.part_counts.data, 0, sizeof(uint32_t) * tiles * parts);
    parallel(threads, parts, 1, [&](int64_t p) {
        uint32_t* counts = counts_of(p);
        // One part may count in any order, and this one is that of the memory.
        for (int c = 0; parts == 1 && c < context.chunks; ++c)
            for (uint32_t i = 0; i < bins[c].count; ++i) ++counts[bins[c].entries.get<Entry>()[i].tile];
        if (parts > 1)
            for_each_entry(context, index, start_of(p), start_of(p + 1),
                           [&](uint32_t, uint32_t, const Entry& entry) { ++counts[entry.tile]; });
    });
    uint32_t* tile_begin = image.tile_begin.get<uint32_t>();
    uint32_t sum = 0;
    for (uint32_t t = 0; t < tiles; ++t) {
        tile_begin[t] = sum;
        for (int p = 0; p < parts; ++p) {
            const uint32_t here = counts_of(p)[t];
            counts_of(p)[t] = sum;
            sum += here;
        }
    }
    tile_begin[tiles] = sum;
    parallel(threads, parts, 1, [&](int64_t p) {
        uint32_t* next = counts_of(p);
        ListEntry* list = image.list.get<ListEntry>();
        for_each_entry(context, index, start_of(p), start_of(p + 1), [&](uint32_t record, uint32_t slot, const Entry& entry) {
            list[next[entry.tile]++] = {record, slot, entry.blocks};
        });
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
            build_lists(context, static_cast<int>(i), 1, 1);
        });
    } else {
        for (int i = 0; i < context.images; ++i) {
            sort_by_depth(context, i);
            build_lists(context, i, task.threads, task.threads);
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
    for (int i = 0; i < context.images; ++i) {
        Image& image = context.image[i];
        image.slot_gradients.reserve(sizeof(float) * (static_cast<size_t>(image.slots) * kSlotFloats + 4));
        image.slot_used.reserve(image.slots);
        if (image.slots) std::memset(image.slot_used.data, 0, image.slots);
    }
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
