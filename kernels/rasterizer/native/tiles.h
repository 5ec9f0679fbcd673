// Drawing one tile; included after gaussian_math.h.
#pragma once

namespace lrm {
namespace {

// Records are fetched into the cache this many entries before they are read.
constexpr uint32_t kAhead = 16;

// The Gaussians of a stretch of a tile's list, gathered into the first-level cache.
struct Batch {
    alignas(64) Record records[kBatch];
};

// The first pixel of a block of a tile.
struct Corner {
    int left, top;
};
static inline Corner block_corner(const Context& context, int tile, int block) {
    return {tile % context.tiles_x * kTile + block % 4 * 4, tile / context.tiles_x * kTile + block / 4 * 4};
}

// Pixel centres of a block, lane by lane.
static inline void block_pixels(const Context& context, int tile, int block, F16& x, F16& y) {
    alignas(64) static const float columns[16] = {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3};
    alignas(64) static const float rows[16] = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
    const Corner corner = block_corner(context, tile, block);
    x = load(columns) + set1(static_cast<float>(corner.left) + 0.5f);
    y = load(rows) + set1(static_cast<float>(corner.top) + 0.5f);
}

static inline F16 exponent_at(const Record& r, F16 x, F16 y) {
    const F16 dx = x - set1(r.x), dy = y - set1(r.y);
    return min(fma(fma(set1(r.a), dx, set1(r.b) * dy), dx, set1(r.c) * dy * dy), zero());
}

// Blocks of the tile with at least one pixel inside the image.
static inline uint32_t blocks_inside(const LrmTask& task, const Context& context, int tile) {
    uint32_t inside = 0;
    for (int block = 0; block < 16; ++block) {
        const Corner corner = block_corner(context, tile, block);
        if (corner.left < task.width && corner.top < task.height) inside |= 1u << block;
    }
    return inside;
}

// Copy 4 x 4 pixels of a plane to sixteen lanes; pixels outside the image read zero.
static inline F16 load_block(const float* plane, int width, int height, Corner corner) {
    const int left = corner.left, top = corner.top;
    if (left + 4 <= width && top + 4 <= height)
        return load_rows(plane + static_cast<size_t>(top) * width + left, width);
    alignas(64) float lanes[16] = {};
    for (int i = 0; i < 16; ++i)
        if (left + i % 4 < width && top + i / 4 < height)
            lanes[i] = plane[static_cast<size_t>(top + i / 4) * width + left + i % 4];
    return load(lanes);
}

static inline void store_block(float* plane, int width, int height, Corner corner, F16 value) {
    const int left = corner.left, top = corner.top;
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

// Blend the batch's Gaussians into one block, with depth or without. `bits` says which touch it, and then which some pixel took.
template <bool with_depth>
static inline void draw_block(const LrmTask& task, const Batch& batch, F16 x, F16 y, Pixels& pixels,
                              uint64_t* bits_of_block) {
    const F16 least = set1(kMinAlpha), most = set1(task.max_alpha), floor = set1(kMinTransmittance);
    M16 active = mask_from_bits(pixels.active);
    F16 t = pixels.transmittance, red = pixels.red, green = pixels.green, blue = pixels.blue;
    F16 depth = pixels.depth, sum = pixels.alpha;
    for (int word = 0; word < kBatch / 64; ++word) {
        uint64_t rest = bits_of_block[word], taken = 0;
        while (rest) {
            const int entry = 64 * word + __builtin_ctzll(rest);
            const uint64_t bit = rest & (0 - rest);
            rest ^= bit;
            const Record& r = batch.records[entry];
            const F16 alpha = min(most, set1(r.opacity) * exp2(exponent_at(r, x, y)));
            M16 hit = and_at_least(active, alpha, least);
            const F16 after = fnma(alpha, t, t);
            const M16 stop = and_at_most(hit, after, floor);
            if (any(stop)) {
                hit = without(hit, stop), active = without(active, stop);
                pixels.end = select(stop, set1(r.number), pixels.end);
                if (!any(active)) rest = 0;
            }
            const F16 weight = select(hit, alpha * t);
            red = fma(weight, set1(r.red), red);
            green = fma(weight, set1(r.green), green);
            blue = fma(weight, set1(r.blue), blue);
            if (with_depth) depth = fma(weight, set1(r.depth), depth);
            sum = sum + weight;
            t = select(hit, after, t);
            taken |= any(hit) ? bit : 0;
        }
        bits_of_block[word] = taken;
        if (!any(active)) {
            for (int i = word + 1; i < kBatch / 64; ++i) bits_of_block[i] = 0;
            break;
        }
    }
    pixels.active = bits(active);
    pixels.transmittance = t, pixels.red = red, pixels.green = green, pixels.blue = blue;
    pixels.depth = depth, pixels.alpha = sum;
}

static void finish_tile(const LrmTask& task, Context& context, int image, int tile, uint32_t inside,
                        const Pixels* pixels) {
    const size_t saved = image * context.pixels_per_image() + static_cast<size_t>(tile) * 256;
    const size_t area = static_cast<size_t>(task.width) * task.height;
    const float* back = task.background ? task.background + 3 * static_cast<size_t>(image) : nullptr;
    float* planes = task.colors + 3 * area * image;
    for (int block = 0; block < 16; ++block) {
        if (!(inside >> block & 1u)) continue;
        const Pixels& p = pixels[block];
        const Corner corner = block_corner(context, tile, block);
        const F16 channels[3] = {p.red, p.green, p.blue};
        for (int c = 0; c < 3; ++c) {
            const F16 value = back ? fma(p.transmittance, set1(back[c]), channels[c]) : channels[c];
            store_block(planes + c * area, task.width, task.height, corner, value);
        }
        store_block(task.alphas + area * image, task.width, task.height, corner, p.alpha);
        store(context.transmittance.get<float>() + saved + 16 * block, p.transmittance);
        store(context.ends.get<float>() + saved + 16 * block, p.end);
        store(context.alpha.get<float>() + saved + 16 * block, p.alpha);
        if (!task.depths) continue;
        const F16 depth = p.depth / max(p.alpha, set1(1e-10f));
        store_block(task.depths + area * image, task.width, task.height, corner, depth);
        store(context.depth.get<float>() + saved + 16 * block, depth);
    }
}

// Gather entries `begin` to `end` of a tile's list of `total`, and find who touches which block.
static inline void fill_batch(const ListEntry* list, const Record* records, uint32_t begin, uint32_t end,
                              uint32_t total, Batch& batch, BlockBits& touching) {
    alignas(64) uint16_t blocks[kBatch] = {};
    for (uint32_t i = begin; i < end; ++i) {
        if (i + kAhead < total) __builtin_prefetch(records + list[i + kAhead].record);
        blocks[i - begin] = list[i].blocks;
        Record& record = batch.records[i - begin];
        store(&record.x, load(&records[list[i].record].x));
        record.number = static_cast<float>(i);
    }
    for (int block = 0; block < 16; ++block)
        for (int word = 0; word < kBatch / 64; ++word) {
            const uint64_t low = bit_of_words(blocks + 64 * word, block);
            const uint64_t high = bit_of_words(blocks + 64 * word + 32, block);
            touching.words[block][word] = low | high << 32;
        }
}

template <bool with_depth>
static void draw_tile_of(const LrmTask& task, Context& context, int image, int tile) {
    const Image& lists = context.image[image];
    const uint32_t begin = lists.tile_begin.get<uint32_t>()[tile];
    const uint32_t total = lists.tile_begin.get<uint32_t>()[tile + 1] - begin;
    ListEntry* list = lists.list.get<ListEntry>() + begin;
    BlockBits* taken = lists.taken.get<BlockBits>() + first_batch(begin, tile);
    const Record* records = context.records.get<Record>() + image * context.records_per_image();
    const uint32_t inside = blocks_inside(task, context, tile);
    uint32_t alive = inside;
    Pixels pixels[16];
    for (Pixels& p : pixels) p = {set1(1.0f), zero(), zero(), zero(), zero(), zero(), set1(3e38f), 0xffffu};
    Batch batch;
    TileOrder order(list, total);
    uint32_t position = 0;
    for (; position < total && alive; position += kBatch, ++taken) {
        const uint32_t end = total - position < kBatch ? total : position + kBatch;
        order.reach(end + kAhead);
        fill_batch(list, records, position, end, total, batch, *taken);
        for (int block = 0; block < 16; ++block) {
            F16 x, y;
            block_pixels(context, tile, block, x, y);
            if (alive >> block & 1u)
                draw_block<with_depth>(task, batch, x, y, pixels[block], taken->words[block]);
            else
                std::memset(taken->words[block], 0, sizeof taken->words[block]);
            if (!pixels[block].active) alive &= ~(1u << block);
        }
    }
    for (; position < total; position += kBatch, ++taken) std::memset(taken, 0, sizeof *taken);
    finish_tile(task, context, image, tile, inside, pixels);
}

static void draw_tile(const LrmTask& task, Context& context, int image, int tile) {
    (task.depths ? draw_tile_of<true> : draw_tile_of<false>)(task, context, image, tile);
}

}  // namespace
}  // namespace lrm
