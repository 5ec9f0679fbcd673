#include "lists.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "parallel.h"

namespace lrm {

// Number the entries of an image, chunk after chunk. Returns how many there are.
static uint32_t number_slots(const Context& context, Bin* bins) {
    uint64_t slots = 0;
    for (int c = 0; c < context.chunks; ++c) {
        bins[c].first_slot = static_cast<uint32_t>(slots);
        slots += bins[c].count;
        if (slots >= 0xffffffffu) throw std::bad_alloc();
    }
    return static_cast<uint32_t>(slots);
}

// Copy the entries of a chunk to their tiles' lists, of which `next` says where to go on.
static void list_chunk(const Context& context, int index, int chunk, uint32_t* next) {
    const size_t number = static_cast<size_t>(index) * context.chunks + chunk;
    const uint32_t first = static_cast<uint32_t>(chunk) * kChunkGaussians;
    const size_t at = index * context.records_per_image() + first;
    const uint32_t* depth_bits = context.depth_bits.get<uint32_t>() + at;
    const uint32_t* ranges = context.record_entries.get<uint32_t>() + 2 * at;
    const uint32_t records = context.chunk_counts.get<uint32_t>()[number];
    const Entry* entry = context.bins[number].entries.get<Entry>();
    uint32_t slot = context.bins[number].first_slot;
    ListEntry* list = context.image[index].list.get<ListEntry>();
    for (uint32_t i = 0; i < records; ++i)
        for (uint32_t j = 0; j < ranges[2 * i + 1]; ++j, ++entry, ++slot) {
            ListEntry* at = list + next[entry->tile]++;
            *at = {depth_bits[i], first + i, slot, entry->blocks};
            // So many lists are begun that the next line of this one is in no cache.
            __builtin_prefetch(at + 6, 1);
        }
}

void sort_by_depth(ListEntry* list, uint32_t count) {
    std::sort(list, list + count, [](const ListEntry& a, const ListEntry& b) {
        return a.depth_bits != b.depth_bits ? a.depth_bits < b.depth_bits : a.record < b.record;
    });
}

void build_lists(Context& context, int index, int parts, int threads) {
    Image& image = context.image[index];
    Bin* bins = context.bins + static_cast<size_t>(index) * context.chunks;
    const uint32_t tiles = static_cast<uint32_t>(context.tiles);
    image.slots = number_slots(context, bins);
    image.tile_begin.reserve(sizeof(uint32_t) * (tiles + 1));
    image.list.reserve(sizeof(ListEntry) * image.slots);
    image.taken.reserve(sizeof(BlockBits) * (image.slots / kBatch + tiles + 1));
    image.part_counts.reserve(sizeof(uint32_t) * tiles * parts);
    const auto counts_of = [&](int64_t part) { return image.part_counts.get<uint32_t>() + tiles * part; };
    const auto start_of = [&](int64_t part) { return static_cast<int>(context.chunks * part / parts); };
    std::memset(image.part_counts.data, 0, sizeof(uint32_t) * tiles * parts);
    parallel(threads, parts, 1, [&](int64_t p) {
        uint32_t* counts = counts_of(p);
        for (int c = start_of(p); c < start_of(p + 1); ++c)
            for (uint32_t i = 0; i < bins[c].count; ++i) ++counts[bins[c].entries.get<Entry>()[i].tile];
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
        for (int c = start_of(p); c < start_of(p + 1); ++c) list_chunk(context, index, c, counts_of(p));
    });
}

}  // namespace lrm
