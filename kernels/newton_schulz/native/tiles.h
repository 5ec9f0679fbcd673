// Matrices as tiles of the matrix units, how they are multiplied, and the layouts in which results are written.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace lrm {

constexpr int kSide = 16;               // Rows and columns of a tile of sums, and rows of every tile.
constexpr int kDepth = 32;              // What one tile product sums over.
constexpr int kTile = kSide * kDepth;   // Elements of a tile of factors: 1 KiB.
constexpr int kBlock = 32;              // Sums are computed in blocks of 2 x 2 tiles.
constexpr int kSums = kBlock * kBlock;  // Elements of a block of sums.

// The size in whole blocks.
inline int padded(int size) { return (size + kBlock - 1) / kBlock * kBlock; }

// A matrix that is padded to whole blocks, as tiles of factors. `left` tiles hold 16 rows and 32 columns. `right` tiles
// hold 32 rows and 16 columns, two rows interleaved. Those that a product sums over follow each other.
struct Tiles {
    int rows, columns;
    uint16_t* start;

    uint16_t* left(int row, int column) const {
        return start + (static_cast<int64_t>(row) * (columns / kDepth) + column) * kTile;
    }
    uint16_t* right(int row, int column) const {
        return start + (static_cast<int64_t>(column) * (rows / kDepth) + row) * kTile;
    }
};

inline void configure() {
    struct alignas(64) {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t row_bytes[16] = {};
        uint8_t rows[16] = {};
    } config;
    for (int tile = 0; tile < 8; ++tile) config.row_bytes[tile] = 64, config.rows[tile] = kSide;
    // GCC does not know that all of it is read.
    asm volatile("" : : "r"(&config) : "memory");
    _tile_loadconfig(&config);
}

// 16 rows and 32 columns on their way from sums to tiles of factors: a register a row.
struct Strip {
    __m512i rows[kSide];
};

inline __m512 widen(__m256i values) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(values), 16));
}

// 32 elements of a row.
struct Wide {
    __m512 low, high;

    explicit Wide(__m512i values)
        : low(widen(_mm512_castsi512_si256(values))), high(widen(_mm512_extracti64x4_epi64(values, 1))) {}
};

inline __m512i narrow(__m512 low, __m512 high) {
    const __m512bh both = _mm512_cvtne2ps_pbh(high, low);
    __m512i bits;
    std::memcpy(&bits, &both, sizeof bits);
    return bits;
}

// A block of sums lies as four tiles: left and right of the upper strip, then of the lower one.
inline const float* sums_of(const float* block, int strip, int row, int half) {
    return block + ((2 * strip + half) * kSide + row) * kSide;
}

// The ways to write a strip: `row` counts 16 rows of the matrix, `column` 32 columns.
inline void store_left(const Strip& strip, const Tiles& to, int row, int column) {
    uint16_t* tile = to.left(row, column);
    for (int i = 0; i < kSide; ++i) _mm512_store_si512(tile + i * kDepth, strip.rows[i]);
}

inline void store_right(const Strip& strip, const Tiles& to, int row, int column) {
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37,
                                         5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    uint16_t* first = to.right(row / 2, 2 * column) + row % 2 * (kTile / 2);
    uint16_t* second = to.right(row / 2, 2 * column + 1) + row % 2 * (kTile / 2);
    for (int i = 0; i < kSide / 2; ++i) {
        const __m512i even = strip.rows[2 * i], odd = strip.rows[2 * i + 1];
        _mm512_store_si512(first + i * kDepth, _mm512_permutex2var_epi16(even, low, odd));
        _mm512_store_si512(second + i * kDepth, _mm512_permutex2var_epi16(even, high, odd));
    }
}

// Turn rows of 16 pairs into columns of 16 pairs: pairs (i, j) change places with (j, i).
inline Strip transpose_pairs(const Strip& strip) {
    __m512i a[kSide], b[kSide];
    for (int i = 0; i < kSide; i += 2) {
        a[i] = _mm512_unpacklo_epi32(strip.rows[i], strip.rows[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32(strip.rows[i], strip.rows[i + 1]);
    }
    for (int i = 0; i < kSide; i += 4) {
        b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
    for (int i = 0; i < 4; ++i) {
        a[i] = _mm512_shuffle_i32x4(b[i], b[i + 4], 0x88);
        a[i + 4] = _mm512_shuffle_i32x4(b[i], b[i + 4], 0xdd);
        a[i + 8] = _mm512_shuffle_i32x4(b[i + 8], b[i + 12], 0x88);
        a[i + 12] = _mm512_shuffle_i32x4(b[i + 8], b[i + 12], 0xdd);
    }
    Strip turned;
    for (int i = 0; i < 8; ++i) {
        turned.rows[i] = _mm512_shuffle_i32x4(a[i], a[i + 8], 0x88);
        turned.rows[i + 8] = _mm512_shuffle_i32x4(a[i], a[i + 8], 0xdd);
    }
    return turned;
}

// `turned` is the transpose of a strip, in pairs; row and column are those of the strip.
inline void store_right_transposed(const Strip& turned, const Tiles& to, int row, int column) {
    uint16_t* tile = to.right(column, row);
    for (int i = 0; i < kSide; ++i) _mm512_store_si512(tile + i * kDepth, turned.rows[i]);
}

inline void store_left_transposed(const Strip& turned, const Tiles& to, int row, int column) {
    for (int i = 0; i < kSide; ++i) {
        uint16_t* even = to.left(2 * column + i / 8, row / 2) + row % 2 * kSide + i % 8 * 2 * kDepth;
        const __m256i low = _mm512_cvtepi32_epi16(turned.rows[i]);
        const __m256i high = _mm512_cvtepi32_epi16(_mm512_srli_epi32(turned.rows[i], 16));
        _mm256_store_si256(reinterpret_cast<__m256i*>(even), low);
        _mm256_store_si256(reinterpret_cast<__m256i*>(even + kDepth), high);
    }
}

inline void start_sums() {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

inline void load_sums(const float* block) {
    asm volatile("" : : : "memory");
    _tile_loadd(0, block, 64);
    _tile_loadd(1, block + kSums / 4, 64);
    _tile_loadd(2, block + kSums / 2, 64);
    _tile_loadd(3, block + kSums / 4 * 3, 64);
}

// Add a block of a product to the sums: rows 32 row.. of `left`, from its tile `depth` on, by columns 32 column.. of
// `right`. The left factor is read past the nearest cache, which the right one fills: callers do well to go through all
// rows before other columns.
inline void add_product(const Tiles& left, const Tiles& right, int row, int column, int depth = 0) {
    // GCC does not know that tiles are read from memory.
    asm volatile("" : : : "memory");
    const uint16_t *upper = left.left(2 * row, depth), *lower = left.left(2 * row + 1, depth);
    const uint16_t *first = right.right(0, 2 * column), *second = right.right(0, 2 * column + 1);
    for (int64_t at = 0; at < static_cast<int64_t>(right.rows) * kSide; at += kTile) {
        _tile_stream_loadd(4, upper + at, 64);
        _tile_loadd(6, first + at, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, second + at, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_stream_loadd(5, lower + at, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
}

inline void store_sums(float* block) {
    _tile_stored(0, block, 64);
    _tile_stored(1, block + kSums / 4, 64);
    _tile_stored(2, block + kSums / 2, 64);
    _tile_stored(3, block + kSums / 4 * 3, 64);
}

// Multiply a block.
inline void multiply(const Tiles& left, const Tiles& right, int row, int column, float* block) {
    start_sums();
    add_product(left, right, row, column);
    store_sums(block);
}

// Return scale * (a strip of a block of sums) + factor * (the strip of `from` at that place).
inline Strip combine(float scale, const float* block, int half, float factor, const Tiles& from, int row, int column) {
    const uint16_t* tile = from.left(row, column);
    Strip strip;
    for (int i = 0; i < kSide; ++i) {
        const __m512i old = _mm512_load_si512(tile + i * kDepth);
        const __m512 low = widen(_mm512_castsi512_si256(old)), high = widen(_mm512_extracti64x4_epi64(old, 1));
        const __m512 sums_low = _mm512_mul_ps(_mm512_set1_ps(scale), _mm512_load_ps(sums_of(block, half, i, 0)));
        const __m512 sums_high = _mm512_mul_ps(_mm512_set1_ps(scale), _mm512_load_ps(sums_of(block, half, i, 1)));
        strip.rows[i] = narrow(_mm512_fmadd_ps(_mm512_set1_ps(factor), low, sums_low),
                               _mm512_fmadd_ps(_mm512_set1_ps(factor), high, sums_high));
    }
    return strip;
}

}  // namespace lrm
