// The memory of calls: it grows, and is kept for the next call.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "task.h"

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
    cam_to_world.reserve(sizeof(double) * 16 * images);
    reserve_array(bins, bin_capacity, images * chunks);
    reserve_array(image, image_capacity, images);
}

// Memory of calls that are over, for the calls to come; more than a few are freed.
constexpr int kMaxIdle = 4;
static std::mutex pool_mutex;
static int idle = 0;
static Context* pool = nullptr;

Context* take_context() {
    std::lock_guard<std::mutex> lock(pool_mutex);
    if (!pool) return new Context;
    Context* c = pool;
    pool = c->next;
    --idle;
    c->next = nullptr;
    return c;
}

void give_back(Context* c) {
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

}  // namespace lrm
