// Strips of plain matrices: read, written, and shared out between threads to pack whole matrices as tiles.
#pragma once

#include "../../newton_schulz/native/tiles.h"

#include <algorithm>
#include <cstdint>

namespace lrm {

// The columns of one row of a strip that the matrix has.
inline __mmask32 inside(int rows, int columns, int row, int column) {
    const int left = row < rows ? std::clamp(columns - column, 0, kDepth) : 0;
    return static_cast<__mmask32>((uint64_t{1} << left) - 1u);
}

inline Strip load(const uint16_t* from, int rows, int columns, int row, int column) {
    Strip strip;
    for (int i = 0; i < kSide; ++i) {
        const uint16_t* at = from + static_cast<int64_t>(row * kSide + i) * columns + column * kDepth;
        strip.rows[i] = _mm512_maskz_loadu_epi16(inside(rows, columns, row * kSide + i, column * kDepth), at);
    }
    return strip;
}

inline Strip load(const float* from, int rows, int columns, int row, int column) {
    Strip strip;
    for (int i = 0; i < kSide; ++i) {
        const __mmask32 mask = inside(rows, columns, row * kSide + i, column * kDepth);
        const float* at = from + static_cast<int64_t>(row * kSide + i) * columns + column * kDepth;
        strip.rows[i] = narrow(_mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), at),
                               _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> kSide), at + kSide));
    }
    return strip;
}

inline void store(const Strip& strip, uint16_t* to, int rows, int columns, int row, int column) {
    for (int i = 0; i < kSide; ++i)
        _mm512_mask_storeu_epi16(to + static_cast<int64_t>(row * kSide + i) * columns + column * kDepth,
                                 inside(rows, columns, row * kSide + i, column * kDepth), strip.rows[i]);
}

// Share the strips of a matrix out between the threads of this region.
template <class Value, class Body>
void for_strips(const Value* from, int rows, int columns, Body body) {
    const int down = padded(rows) / kSide, across = padded(columns) / kDepth;
#pragma omp for schedule(static) nowait
    for (int job = 0; job < down * across; ++job)
        body(load(from, rows, columns, job / across, job % across), job / across, job % across);
}

template <class Value>
void pack_right(const Value* from, int rows, int columns, const Tiles& to) {
    for_strips(from, rows, columns, [&](const Strip& strip, int row, int column) {
        store_right(strip, to, row, column);
    });
}

template <class Value>
void pack_right_transposed(const Value* from, int rows, int columns, const Tiles& to) {
    for_strips(from, rows, columns, [&](const Strip& strip, int row, int column) {
        store_right_transposed(transpose_pairs(strip), to, row, column);
    });
}

// The strip of a block of sums, as it is.
inline Strip rounded(const float* block, int half) {
    Strip strip;
    for (int i = 0; i < kSide; ++i)
        strip.rows[i] = narrow(_mm512_load_ps(sums_of(block, half, i, 0)), _mm512_load_ps(sums_of(block, half, i, 1)));
    return strip;
}

}  // namespace lrm
