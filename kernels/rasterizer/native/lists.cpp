#include "lists.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "parallel.h"

namespace lrm {

constexpr int kMaxDigitBits = 12;

// A stable radix sort of (depth bits, record).
void sort_by_depth(Context& context, int index) {
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
    if (from == image.order.get<uint64_t>()) return;
    std::swap(image.order.data, image.order_scratch.data);
    std::swap(image.order.bytes, image.order_scratch.bytes);
}

// Call take(record, slot, entry) for the entries of records `begin` to `end` of the depth order.
template <class Take>
static void for_each_entry(const Context& context, int index, uint32_t begin, uint32_t end, Take take) {
    constexpr uint32_t far_ahead = 24, near_ahead = 12;
    const uint64_t* order = context.image[index].order.get<uint64_t>();
    const uint32_t* ranges = context.record_entries.get<uint32_t>() + 2 * index * context.records_per_image();
    const Bin* bins = context.bins + static_cast<size_t>(index) * context.chunks;
    const auto record_at = [&](uint32_t i) { return static_cast<uint32_t>(order[i]); };
    const auto range_of = [&](uint32_t record) { return ranges + 2 * static_cast<size_t>(record); };
    const auto entries_of = [&](uint32_t record) {
        return bins[record / kChunkGaussians].entries.get<Entry>() + range_of(record)[0];
    };
    for (uint32_t i = begin; i < end; ++i) {
        if (i + far_ahead < end) __builtin_prefetch(range_of(record_at(i + far_ahead)));
        if (i + near_ahead < end) __builtin_prefetch(entries_of(record_at(i + near_ahead)));
        const uint32_t record = record_at(i);
        const uint32_t* range = range_of(record);
        const uint32_t slot = bins[record / kChunkGaussians].first_slot + range[0];
        const Entry* entries = entries_of(record);
        for (uint32_t j = 0; j < range[1]; ++j) take(record, slot + j, entries[j]);
    }
}

void build_lists(Context& context, int index, int parts, int threads) {
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
        const auto put = [&](uint32_t record, uint32_t slot, const Entry& entry) {
            list[next[entry.tile]++] = {record, slot, entry.blocks};
        };
        for_each_entry(context, index, start_of(p), start_of(p + 1), put);
    });
}

}  // namespace lrm
