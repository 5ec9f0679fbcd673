// The steps of Newton-Schulz, which both passes take: what they work on, and its parts that are computed together.
#pragma once

#include <cstdint>
#include <vector>

#include "tiles.h"

#define LRM_EXPORT extern "C" __attribute__((visibility("default")))

extern "C" {

// Plain C. The matrices are contiguous and lie wide: rows <= columns.
struct LrmNewtonSchulz {
    int32_t matrices, rows, columns, steps, threads;
    float a, b, c, epsilon;
    const uint16_t* input;  // [matrices rows columns]
    uint16_t* output;       // [matrices rows columns]: the result, or in the backward pass the gradient by the input.
    const uint16_t* slope;  // [matrices rows columns]: the gradient by the result, which the backward pass alone reads.
};
}

namespace lrm {

// Some columns of an iterate: as a left factor, as a right factor, and transposed as a right factor if that is read.
struct Columns {
    Tiles x, x_right, x_transposed;
};

// One step: X X^T both ways, and the polynomial in it.
struct Step {
    Tiles gram, gram_right, polynomial;
};

// Blocks above a block of the upper triangle of a matrix of `rows` x `rows` blocks, which are counted row by row.
inline int in_triangle(int rows, int row, int column) { return row * rows - row * (row - 1) / 2 + column - row; }

// Write this part of X X^T, one triangle of it, for the others to add to theirs.
inline void write_grams(const Columns& own, float* sums) {
    const int rows = own.x.rows / kBlock;
    for (int row = 0; row < rows; ++row)
        for (int column = row; column < rows; ++column, sums += kSums)
            multiply(own.x, own.x_transposed, row, column, sums);
}

// Write a strip of a symmetric matrix and its mirror image, which blocks on the diagonal bring themselves.
inline void store_symmetric(const Strip& strip, const Tiles& left, const Tiles* right, int row, int column) {
    store_left(strip, left, row, column);
    if (right) store_right(strip, *right, row, column);
    if (row / 2 == column) return;
    const Strip turned = transpose_pairs(strip);
    store_left_transposed(turned, left, row, column);
    if (right) store_right_transposed(turned, *right, row, column);
}

// Add up the parts of a tile of sums, always in the same order.
inline Strip add_up(const std::vector<float*>& parts, int64_t tile) {
    Strip total;
    for (int i = 0; i < kSide; ++i) {
        __m512 sum = _mm512_setzero_ps();
        for (const float* sums : parts) sum = _mm512_add_ps(sum, _mm512_load_ps(sums + (tile * kSide + i) * kSide));
        total.rows[i] = _mm512_castps_si512(sum);
    }
    return total;
}

inline void add_grams(const std::vector<float*>& parts, const Step& step, int row, int column) {
    const int64_t tile = int64_t{4} * in_triangle(step.gram.rows / kBlock, row, column);
    for (int half = 0; half < 2; ++half) {
        const Strip low = add_up(parts, tile + 2 * half), high = add_up(parts, tile + 2 * half + 1);
        Strip strip;
        for (int i = 0; i < kSide; ++i)
            strip.rows[i] = narrow(_mm512_castsi512_ps(low.rows[i]), _mm512_castsi512_ps(high.rows[i]));
        store_symmetric(strip, step.gram, &step.gram_right, 2 * row + half, column);
    }
}

inline void write_polynomial(const LrmNewtonSchulz& task, const Step& step, int row, int column) {
    alignas(64) float block[kSums];
    multiply(step.gram, step.gram_right, row, column, block);
    for (int half = 0; half < 2; ++half) {
        const Strip strip = combine(task.c, block, half, task.b, step.gram, 2 * row + half, column);
        store_symmetric(strip, step.polynomial, nullptr, 2 * row + half, column);
    }
}

// Write a X + P X. Where it replaces X, the right factor is read until a block column is done, and replaced then.
inline void iterate(const LrmNewtonSchulz& task, const Tiles& polynomial, const Columns& from, const Columns& to,
                    uint16_t* next) {
    const int rows = from.x.rows / kBlock;
    const Tiles written = {from.x.rows, kBlock, next};
    for (int column = 0; column < from.x.columns / kBlock; ++column) {
        for (int row = 0; row < rows; ++row) {
            alignas(64) float block[kSums];
            multiply(polynomial, from.x_right, row, column, block);
            for (int half = 0; half < 2; ++half) {
                const Strip strip = combine(1.0f, block, half, task.a, from.x, 2 * row + half, column);
                store_left(strip, to.x, 2 * row + half, column);
                store_right(strip, written, 2 * row + half, 0);
                store_right_transposed(transpose_pairs(strip), to.x_transposed, 2 * row + half, column);
            }
        }
        std::memcpy(to.x_right.right(0, 2 * column), next, sizeof(uint16_t) * from.x.rows * kBlock);
    }
}

}  // namespace lrm
