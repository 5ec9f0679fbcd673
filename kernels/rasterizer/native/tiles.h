// Drawing one tile; included after gaussian_math.h.
#pragma once

namespace lrm {
namespace {

constexpr int kBatch = 128;

// The Gaussians of a stretch of a tile's list, gathered into the first-level cache.
struct Batch {
    alignas(64) Record records[kBatch];
    uint32_t slots[kBatch];
    alignas(64) uint16_t blocks[kBatch];
    int count;
};

// Pixel centres of a block, lane by lane.
static inline void block_pixels(const Context& context, int tile, int block, F16& x, F16& y) {
    alignas(64) static const float columns[16] = {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3};
    alignas(64) static const float rows[16] = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
    const int left = tile % context.tiles_x * kTile + block % 4 * 4, top = tile / context.tiles_x * kTile + block / 4 * 4;
    x = load(columns) + set1(static_cast<float>(left) + 0.5f);
    y = load(rows) + set1(static_cast<float>(top) + 0.5f);
}

static inline F16 sigma_at(const Record& r, F16 x, F16 y) {
    const F16 dx = x - set1(r.x), dy = y - set1(r.y);
    return max(fma(fma(set1(r.a), dx, set1(r.b) * dy), dx, set1(r.c) * dy * dy), zero());
}

// Blocks of the tile with at least one pixel inside the image.
static inline uint32_t blocks_inside(const LrmTask& task, const Context& context, int tile) {
    const int left = tile % context.tiles_x * kTile, top = tile / context.tiles_x * kTile;
    uint32_t inside = 0;
    for (int block = 0; block < 16; ++block)
        if (left + block % 4 * 4 < task.width && top + block / 4 * 4 < task.height) inside |= 1u << block;
    return inside;
}

// Entries of the batch whose Gaussian touches the block, in order; returns how many.
static inline int entries_on_block(const Batch& batch, int block, uint16_t* out) {
    int count = 0;
    for (int i = 0; i < batch.count; ++i) {
        out[count] = static_cast<uint16_t>(i);
        count += batch.blocks[i] >> block & 1;
    }
    return count;
}

// Copy 4 x 4 pixels of a plane to sixteen lanes; pixels outside the image read zero.
static inline F16 load_block(const float* plane, int width, int height, int left, int top) {
    if (left + 4 <= width && top + 4 <= height) return load_rows(plane + static_cast<size_t>(top) * width + left, width);
    alignas(64) float lanes[16] = {};
    for (int i = 0; i < 16; ++i)
        if (left + i % 4 < width && top + i / 4 < height)
            lanes[i] = plane[static_cast<size_t>(top + i / 4) * width + left + i % 4];
    return load(lanes);
}

static inline void store_block(float* plane, int width, int height, int left, int top, F16 value) {
    if (left + 4 <= width && top + 4 <= height) {
        store_rows(plane + static_cast<size_t>(top) * width + left, width, value);
        return;
    }
    alignas(64) float lanes[16];
    store(lanes, value);
    for (int i = 0; i < 16; ++i)
        if (left + i % 4 < width && top + i / 4 < height)
            plane[static_cast<size_t>(top + i / 4) * width + left + i % 4] = lanes[i];
}

struct Pixels {
    F16 transmittance, red, green, blue, depth, alpha, end;
    uint32_t active;
};

// Blend the batch's Gaussians into one block. Sets the bits of `used` for entries that some pixel took.
static inline void draw_block(const LrmTask& task, const Batch& batch, const uint16_t* list, int count, float first,
                              F16 x, F16 y, Pixels& pixels, uint8_t* used) {
    const F16 least = set1(kMinAlpha), most = set1(task.max_alpha), floor = set1(kMinTransmittance), one = set1(1.0f);
    M16 active = mask_from_bits(pixels.active);
    F16 t = pixels.transmittance, red = pixels.red, green = pixels.green, blue = pixels.blue;
    F16 depth = pixels.depth, sum = pixels.alpha;
    for (int j = 0; j < count; ++j) {
        const Record& r = batch.records[list[j]];
        const F16 alpha = min(set1(r.opacity) * exp_of_minus(sigma_at(r, x, y)), most);
        M16 hit = active & (alpha >= least);
        const F16 after = t * (one - alpha);
        const M16 stop = hit & (after <= floor);
        if (any(stop)) {
            hit = without(hit, stop), active = without(active, stop);
            pixels.end = select(stop, set1(first + static_cast<float>(list[j])), pixels.end);
            if (!any(active)) break;
        }
        const F16 weight = select(hit, alpha * t);
        red = fma(weight, set1(r.red), red);
        green = fma(weight, set1(r.green), green);
        blue = fma(weight, set1(r.blue), blue);
        depth = fma(weight, set1(r.depth), depth);
        sum = sum + weight;
        t = select(hit, after, t);
        used[j] = any(hit);
    }
    pixels.active = bits(active);
    pixels.transmittance = t, pixels.red = red, pixels.green = green, pixels.blue = blue;
    pixels.depth = depth, pixels.alpha = sum;
}

static void finish_tile(const LrmTask& task, Context& context, int image, int tile, uint32_t inside, const Pixels* pixels) {
    const size_t saved = image * context.pixels_per_image() + static_cast<size_t>(tile) * 256;
    const size_t area = static_cast<size_t>(task.width) * task.height;
    const float* back = task.background ? task.background + 3 * static_cast<size_t>(image) : nullptr;
    float* planes = task.colors + 3 * area * image;
    for (int block = 0; block < 16; ++block) {
        if (!(inside >> block & 1u)) continue;
        const Pixels& p = pixels[block];
        const int left = tile % context.tiles_x * kTile + block % 4 * 4, top = tile / context.tiles_x * kTile + block / 4 * 4;
        const F16 channels[3] = {p.red, p.green, p.blue};
        for (int c = 0; c < 3; ++c) {
            const F16 value = back ? fma(p.transmittance, set1(back[c]), channels[c]) : channels[c];
            store_block(planes + c * area, task.width, task.height, left, top, value);
        }
        const F16 depth = p.depth / max(p.alpha, set1(1e-10f));
        store_block(task.alphas + area * image, task.width, task.height, left, top, p.alpha);
        if (task.depths) store_block(task.depths + area * image, task.width, task.height, left, top, depth);
        store(context.transmittance.get<float>() + saved + 16 * block, p.transmittance);
        store(context.ends.get<float>() + saved + 16 * block, p.end);
        store(context.alpha.get<float>() + saved + 16 * block, p.alpha);
        store(context.depth.get<float>() + saved + 16 * block, depth);
    }
}

static void draw_tile(const LrmTask& task, Context& context, int image, int tile) {
    const Image& lists = context.image[image];
    const uint32_t begin = lists.tile_begin.get<uint32_t>()[tile], end = lists.tile_begin.get<uint32_t>()[tile + 1];
    const uint32_t* slots = lists.tile_slots.get<uint32_t>();
    const uint32_t* slot_record = lists.slot_record.get<uint32_t>();
    uint16_t* slot_blocks = lists.slot_blocks.get<uint16_t>();
    const Record* records = context.records.get<Record>() + image * context.records_per_image();
    const uint32_t inside = blocks_inside(task, context, tile);
    uint32_t alive = inside;
    Pixels pixels[16];
    for (Pixels& p : pixels) {
        p = {set1(1.0f), zero(), zero(), zero(), zero(), zero(), set1(3e38f), 0xffffu};
    }
    Batch batch;
    uint16_t list[kBatch], seen[kBatch];
    uint8_t used[kBatch];
    uint32_t position = begin;
    for (; position < end && alive; position += kBatch) {
        batch.count = static_cast<int>(end - position < kBatch ? end - position : kBatch);
        for (int i = 0; i < batch.count; ++i) {
            const uint32_t slot = slots[position + i];
            if (position + i + 8 < end) __builtin_prefetch(records + slot_record[slots[position + i + 8]]);
            batch.slots[i] = slot;
            batch.blocks[i] = static_cast<uint16_t>(slot_blocks[slot] & alive);
            store(&batch.records[i].x, load(&records[slot_record[slot]].x));
            seen[i] = 0;
        }
        const float first = static_cast<float>(position - begin);
        for (int block = 0; block < 16; ++block) {
            if (!(alive >> block & 1u)) continue;
            const int count = entries_on_block(batch, block, list);
            if (!count) continue;
            F16 x, y;
            block_pixels(context, tile, block, x, y);
            for (int j = 0; j < count; ++j) used[j] = 0;
            draw_block(task, batch, list, count, first, x, y, pixels[block], used);
            for (int j = 0; j < count; ++j) seen[list[j]] |= static_cast<uint16_t>(used[j] << block);
            if (!pixels[block].active) alive &= ~(1u << block);
        }
        for (int i = 0; i < batch.count; ++i) slot_blocks[batch.slots[i]] = seen[i];
    }
    for (; position < end; ++position) slot_blocks[slots[position]] = 0;
    finish_tile(task, context, image, tile, inside, pixels);
}

}  // namespace
}  // namespace lrm
