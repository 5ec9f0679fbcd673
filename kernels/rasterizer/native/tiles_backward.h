// The gradient of one tile's pixels to the Gaussians on it; included after tiles.h.
#pragma once

namespace lrm {
namespace {

// Gradients to one block's pixels, and what the Gaussians behind have contributed so far.
struct PixelGradients {
    F16 transmittance, red, green, blue, depth, alpha, behind, end;
};

// Sixteen Gaussians of one block, waiting for their sums over the pixels.
struct Waiting {
    // Per Gaussian, sixteen pixels: gradient to sigma, and blending weight.
    F16 sigma[16], weight[16];
    alignas(64) float x[16], y[16];
    uint16_t entry[16];
    int count;
};

static inline PixelGradients pixel_gradients(const LrmTask& task, const LrmGradients& grads, const Context& context,
                                             int image, int tile, int block, float* background_sums) {
    const size_t area = static_cast<size_t>(task.width) * task.height;
    const Corner corner = block_corner(context, tile, block);
    const size_t saved = image * context.pixels_per_image() + static_cast<size_t>(tile) * 256 + 16 * block;
    const F16 none = zero();
    PixelGradients p = {none, none, none, none, none, none, none, load(context.ends.get<float>() + saved)};
    p.transmittance = load(context.transmittance.get<float>() + saved);
    if (grads.colors) {
        const float* planes = grads.colors + 3 * area * image;
        p.red = load_block(planes, task.width, task.height, corner);
        p.green = load_block(planes + area, task.width, task.height, corner);
        p.blue = load_block(planes + 2 * area, task.width, task.height, corner);
        if (task.background) {
            const float* back = task.background + 3 * static_cast<size_t>(image);
            const F16 sum = fma(p.red, set1(back[0]), fma(p.green, set1(back[1]), p.blue * set1(back[2])));
            p.behind = p.transmittance * sum;
        }
        store(background_sums, fma(p.transmittance, p.red, load(background_sums)));
        store(background_sums + 16, fma(p.transmittance, p.green, load(background_sums + 16)));
        store(background_sums + 32, fma(p.transmittance, p.blue, load(background_sums + 32)));
    }
    if (grads.alphas) p.alpha = load_block(grads.alphas + area * image, task.width, task.height, corner);
    if (grads.depths) {
        const F16 alpha = load(context.alpha.get<float>() + saved);
        const F16 grad = load_block(grads.depths + area * image, task.width, task.height, corner);
        p.depth = select(alpha > set1(1e-10f), grad / alpha);
        p.alpha = fnma(p.depth, load(context.depth.get<float>() + saved), p.alpha);
    }
    return p;
}

// Sum the waiting Gaussians over the pixels, with Gaussians in the lanes, and add them to their accumulators.
template <bool with_depth>
static inline void flush(Waiting& waiting, const PixelGradients& p, F16 x, F16 y, float* accumulators) {
    for (int i = waiting.count; i < 16; ++i) waiting.sigma[i] = waiting.weight[i] = zero();
    transpose16(waiting.sigma);
    transpose16(waiting.weight);
    alignas(64) float px[16], py[16], gradients[4][16];
    store(px, x), store(py, y);
    store(gradients[0], p.red), store(gradients[1], p.green), store(gradients[2], p.blue), store(gradients[3], p.depth);
    F16 m[16];
    for (F16& v : m) v = zero();
    const F16 mx = load(waiting.x), my = load(waiting.y);
    F16 dx[4], dxx[4];
    for (int i = 0; i < 4; ++i) dx[i] = set1(px[i]) - mx, dxx[i] = dx[i] * dx[i];
    for (int row = 0; row < 4; ++row) {
        const F16* s = waiting.sigma + 4 * row;
        const F16 s0 = (s[0] + s[1]) + (s[2] + s[3]);
        const F16 s1 = fma(s[0], dx[0], fma(s[1], dx[1], fma(s[2], dx[2], s[3] * dx[3])));
        const F16 s2 = fma(s[0], dxx[0], fma(s[1], dxx[1], fma(s[2], dxx[2], s[3] * dxx[3])));
        const F16 dy = set1(py[4 * row]) - my, s0y = s0 * dy;
        m[kS] = m[kS] + s0;
        m[kSx] = m[kSx] + s1;
        m[kSxx] = m[kSxx] + s2;
        m[kSy] = m[kSy] + s0y;
        m[kSxy] = fma(s1, dy, m[kSxy]);
        m[kSyy] = fma(s0y, dy, m[kSyy]);
    }
    for (int i = 0; i < 16; ++i) {
        m[kRed] = fma(waiting.weight[i], set1(gradients[0][i]), m[kRed]);
        m[kGreen] = fma(waiting.weight[i], set1(gradients[1][i]), m[kGreen]);
        m[kBlue] = fma(waiting.weight[i], set1(gradients[2][i]), m[kBlue]);
        if (with_depth) m[kDepth] = fma(waiting.weight[i], set1(gradients[3][i]), m[kDepth]);
    }
    transpose16(m);
    for (int i = 0; i < waiting.count; ++i) {
        float* sum = accumulators + 16 * waiting.entry[i];
        store(sum, load(sum) + m[i]);
    }
    waiting.count = 0;
}

// Go through the batch's Gaussians from back to front, undoing the blending of one block.
template <bool with_depth>
static inline void block_backward(const LrmTask& task, const Batch& batch, const uint64_t* taken, F16 x, F16 y,
                                  PixelGradients& p, Waiting& waiting, float* accumulators) {
    const F16 least = set1(kMinAlpha), most = set1(task.max_alpha), one = set1(1.0f);
    F16 t = p.transmittance, behind = p.behind;
    for (int word = kBatch / 64 - 1; word >= 0; --word)
        for (uint64_t rest = taken[word]; rest;) {
            const int bit = 63 - __builtin_clzll(rest), entry = 64 * word + bit;
            rest ^= uint64_t{1} << bit;
            const Record& r = batch.records[entry];
            const F16 raw = set1(r.opacity) * exp2(exponent_at(r, x, y));
            const F16 alpha = min(most, raw);
            const M16 hit = and_above(alpha >= least, p.end, set1(r.number));
            const F16 inverse = reciprocal(one - alpha);
            t = select(hit, t * inverse, t);
            const F16 weight = select(hit, alpha * t);
            F16 value = fma(p.red, set1(r.red), p.alpha);
            value = fma(p.green, set1(r.green), value);
            value = fma(p.blue, set1(r.blue), value);
            if (with_depth) value = fma(p.depth, set1(r.depth), value);
            const F16 minus_grad_alpha = fnma(t, value, behind * inverse);
            behind = fma(weight, value, behind);
            const int n = waiting.count++;
            waiting.sigma[n] = select(and_at_most(hit, raw, most), raw * minus_grad_alpha);
            waiting.weight[n] = weight;
            waiting.x[n] = r.x, waiting.y[n] = r.y;
            waiting.entry[n] = static_cast<uint16_t>(entry);
            if (n == 15) flush<with_depth>(waiting, p, x, y, accumulators);
        }
    if (waiting.count) flush<with_depth>(waiting, p, x, y, accumulators);
    p.transmittance = t, p.behind = behind;
}

// Call take(entry) for the entries of a batch that some block took. Returns whether there are any.
template <class Take>
static inline bool for_each_taken(const BlockBits& taken, Take take) {
    bool some = false;
    for (int word = 0; word < kBatch / 64; ++word) {
        uint64_t rest = 0;
        for (int block = 0; block < 16; ++block) rest |= taken.words[block][word];
        some |= rest != 0;
        for (; rest; rest &= rest - 1) take(64 * word + __builtin_ctzll(rest));
    }
    return some;
}

// Gather the entries that some block took, clear their accumulators, and ask for the memory of their gradients.
static inline bool fill_backward(const ListEntry* list, const Record* records, const float* slot_gradients,
                                 uint32_t offset, const BlockBits& taken, Batch& batch, float* accumulators) {
    return for_each_taken(taken, [&](int entry) {
        const ListEntry& from = list[offset + entry];
        store(&batch.records[entry].x, load(&records[from.record].x));
        batch.records[entry].number = static_cast<float>(offset + entry);
        store(accumulators + 16 * entry, zero());
        const float* slot = slot_gradients + static_cast<size_t>(from.slot) * kSlotFloats;
        __builtin_prefetch(slot, 1);
        __builtin_prefetch(slot + kSlotFloats - 1, 1);
    });
}

template <bool with_depth>
static void draw_tile_backward_of(const LrmTask& task, const LrmGradients& grads, Context& context, int image, int tile) {
    const Image& lists = context.image[image];
    const uint32_t begin = lists.tile_begin.get<uint32_t>()[tile];
    const uint32_t total = lists.tile_begin.get<uint32_t>()[tile + 1] - begin;
    const BlockBits* taken = lists.taken.get<BlockBits>() + first_batch(begin, tile);
    const Record* records = context.records.get<Record>() + image * context.records_per_image();
    float* slot_gradients = lists.slot_gradients.get<float>();
    uint8_t* used = lists.slot_used.get<uint8_t>();
    const ListEntry* list = lists.list.get<ListEntry>() + begin;
    const uint32_t inside = blocks_inside(task, context, tile);
    alignas(64) float background_sums[48] = {};
    PixelGradients pixels[16];
    for (int block = 0; block < 16; ++block)
        if (inside >> block & 1u)
            pixels[block] = pixel_gradients(task, grads, context, image, tile, block, background_sums);
    Batch batch;
    Waiting waiting;
    waiting.count = 0;
    alignas(64) float accumulators[16 * kBatch];
    for (int number = static_cast<int>((total + kBatch - 1) / kBatch) - 1; number >= 0; --number) {
        const uint32_t offset = static_cast<uint32_t>(number) * kBatch;
        const bool some = fill_backward(list, records, slot_gradients, offset, taken[number], batch, accumulators);
        if (number)
            for_each_taken(taken[number - 1],
                           [&](int entry) { __builtin_prefetch(records + list[offset - kBatch + entry].record); });
        for (int block = 0; some && block < 16; ++block) {
            F16 x, y;
            block_pixels(context, tile, block, x, y);
            if (inside >> block & 1u)
                block_backward<with_depth>(task, batch, taken[number].words[block], x, y, pixels[block], waiting, accumulators);
        }
        for_each_taken(taken[number], [&](int entry) {
            const uint32_t slot = list[offset + entry].slot;
            used[slot] = 1;
            std::memcpy(slot_gradients + static_cast<size_t>(slot) * kSlotFloats, accumulators + 16 * entry,
                        kSlotFloats * sizeof(float));
        });
    }
    float* out = context.background_sums.get<float>() + 3 * (static_cast<size_t>(image) * context.tiles + tile);
    for (int c = 0; c < 3; ++c) {
        out[c] = 0.0f;
        for (int lane = 0; lane < 16; ++lane) out[c] += background_sums[16 * c + lane];
    }
}

static void draw_tile_backward(const LrmTask& task, const LrmGradients& grads, Context& context, int image, int tile) {
    (grads.depths ? draw_tile_backward_of<true> : draw_tile_backward_of<false>)(task, grads, context, image, tile);
}

}  // namespace
}  // namespace lrm
