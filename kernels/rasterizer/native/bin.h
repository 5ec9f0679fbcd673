// Which blocks of which tiles a Gaussian touches; included after gaussian_math.h, before project.h.
#pragma once

namespace lrm {
namespace {

// The blocks of the tile at (left, top) on which the exponent reaches the limit somewhere between pixel centres.
static inline uint32_t touched_blocks(const Record& r, float left, float top) {
    alignas(64) static const float columns[16] = {0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12};
    alignas(64) static const float rows[16] = {0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12};
    const F16 x_low = load(columns) + set1(left + 0.5f - r.x), x_high = x_low + set1(3.0f);
    const F16 y_low = load(rows) + set1(top + 0.5f - r.y), y_high = y_low + set1(3.0f);
    const F16 a = set1(r.a), b = set1(r.b), c = set1(r.c);
    // The largest exponent of a block is on the edge that faces the centre: along the nearest row or the nearest column.
    const F16 near_x = min(max(zero(), x_low), x_high), near_y = min(max(zero(), y_low), y_high);
    const F16 y = min(max(set1(r.slope_y) * near_x, y_low), y_high);
    const F16 x = min(max(set1(r.slope_x) * near_y, x_low), x_high);
    const F16 on_column = fma(fma(a, near_x, b * y), near_x, c * y * y);
    const F16 on_row = fma(fma(a, x, b * near_y), x, c * near_y * near_y);
    return bits(max(on_column, on_row) >= set1(r.limit));
}

static inline int tile_index(float pixel, int tiles) {
    const float t = pixel * (1.0f / kTile);
    return t <= 0.0f ? 0 : t >= static_cast<float>(tiles) ? tiles - 1 : static_cast<int>(t);
}

// Add the entries of new records to their bin.
static inline void bin_records(const Context& context, const Record* records, uint32_t count, uint32_t* record_entries,
                               Bin& bin) {
    for (uint32_t i = 0; i < count; ++i) {
        const Record& r = records[i];
        const int x0 = tile_index(r.x - r.extent_x, context.tiles_x);
        const int x1 = tile_index(r.x + r.extent_x, context.tiles_x);
        const int y0 = tile_index(r.y - r.extent_y, context.tiles_y);
        const int y1 = tile_index(r.y + r.extent_y, context.tiles_y);
        const uint32_t begin = bin.count, most = static_cast<uint32_t>((x1 - x0 + 1) * (y1 - y0 + 1));
        if (bin.capacity - begin < most) bin.grow(most);
        Entry* next = bin.entries.get<Entry>() + begin;
        for (int ty = y0; ty <= y1; ++ty)
            for (int tx = x0; tx <= x1; ++tx) {
                const float left = static_cast<float>(tx * kTile), top = static_cast<float>(ty * kTile);
                const uint32_t blocks = touched_blocks(r, left, top);
                *next = {static_cast<uint32_t>(ty * context.tiles_x + tx), static_cast<uint16_t>(blocks)};
                next += blocks != 0;
            }
        bin.count = static_cast<uint32_t>(next - bin.entries.get<Entry>());
        record_entries[2 * i] = begin;
        record_entries[2 * i + 1] = bin.count - begin;
    }
}

}  // namespace
}  // namespace lrm
