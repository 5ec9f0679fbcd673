// The gradients of an update of the memory, on the matrix units of x86 processors (AMX). What a general library would
// write to memory in between, hidden activations of all tokens, lives here in the cache of the thread that makes it.
#include "../../newton_schulz/native/working_memory.h"
#include "pointwise.h"
#include "strips.h"

#include <algorithm>
#include <cstdint>
#include <new>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif

#define LRM_EXPORT extern "C" __attribute__((visibility("default")))

extern "C" {

// Plain C. All arrays are contiguous; shapes in brackets.
struct LrmFastWeightGradients {
    int32_t memories, tokens, width, hidden, threads;
    const float *gate, *up;                         // [memories width hidden]
    const float* down;                              // [memories hidden width]
    const uint16_t *k, *v;                          // [memories tokens width]
    const float *rate_gate, *rate_down, *rate_up;   // [memories tokens]
    uint16_t *to_gate, *to_up, *to_down;            // [memories width hidden], that of `down` transposed
};
}

namespace lrm {
namespace {

constexpr int kHiddenAtOnce = 96;    // Hidden units whose gradients a thread computes at a time.
constexpr int kTokensAtOnce = 2048;  // Tokens whose hidden activations it keeps for that.

// Add the product of some columns of `left`, from tile `depth` on, with all of `right` to a block.
void multiply_onto(const Tiles& left, int depth, const Tiles& right, int row, int column, bool onto, float* block) {
    onto ? load_sums(block) : start_sums();
    add_product(left, right, row, column, depth);
    store_sums(block);
}

// What all threads read of one memory and its tokens.
struct Written {
    Tiles gate, up, down_transposed;  // Right factors, width x hidden.
    Tiles k, v;                       // Left factors, tokens x width,
    Tiles k_transposed, v_transposed; // and width x tokens.
};

// What one thread works in: hidden gradients of some tokens and hidden units, and their products with the tokens.
struct Bench {
    Tiles hidden[3];
    float* sums;
};

// From products with k and v to what the tokens want of the hidden units (LaCT, arXiv 2505.23884): for gate, up, down.
void hidden_gradients(const float* const before[3], int half, const float rates[3][kBlock], Strip wanted[3]) {
    const __m512 one = _mm512_set1_ps(1.0f);
    for (int i = 0; i < kSide; ++i) {
        const int token = half * kSide + i;
        __m512 parts[3][2];
        for (int side = 0; side < 2; ++side) {
            const __m512 gate = _mm512_load_ps(sums_of(before[0], half, i, side));
            const __m512 up = _mm512_load_ps(sums_of(before[1], half, i, side));
            const __m512 to_hidden = _mm512_load_ps(sums_of(before[2], half, i, side));
            const __m512 open = sigmoid(gate), activated = _mm512_mul_ps(gate, open);
            const __m512 slope = _mm512_mul_ps(open, _mm512_fmadd_ps(gate, _mm512_sub_ps(one, open), one));
            const __m512 by_up = _mm512_mul_ps(_mm512_mul_ps(to_hidden, up), slope);
            parts[0][side] = _mm512_mul_ps(by_up, _mm512_set1_ps(rates[0][token]));
            parts[1][side] = _mm512_mul_ps(_mm512_mul_ps(to_hidden, activated), _mm512_set1_ps(rates[1][token]));
            parts[2][side] = _mm512_mul_ps(_mm512_mul_ps(activated, up), _mm512_set1_ps(rates[2][token]));
        }
        for (int matrix = 0; matrix < 3; ++matrix) wanted[matrix].rows[i] = narrow(parts[matrix][0], parts[matrix][1]);
    }
}

// Compute the gradients of hidden units `begin` to `end`, in blocks.
void gradients_of(const LrmFastWeightGradients& task, int memory, const Written& all, const Bench& bench, int begin,
                  int end) {
    const int tokens = all.k.rows, blocks = end - begin, down = all.k.columns / kBlock;
    const float* const rates[3] = {task.rate_gate, task.rate_up, task.rate_down};
    const Tiles* const weights[3] = {&all.gate, &all.up, &all.down_transposed};
    for (int start = 0; start < tokens; start += kTokensAtOnce) {
        const int count = std::min(kTokensAtOnce, tokens - start);
        Tiles hidden[3];
        for (int i = 0; i < 3; ++i) hidden[i] = {count, kHiddenAtOnce, bench.hidden[i].start};
        for (int row = 0; row < count / kBlock; ++row) {
            const int first = start + row * kBlock;
            float own[3][kBlock] = {};
            for (int i = 0; i < 3; ++i)
                for (int token = 0; token < std::min(kBlock, task.tokens - first); ++token)
                    own[i][token] = rates[i][static_cast<int64_t>(memory) * task.tokens + first + token];
            for (int column = begin; column < end; ++column) {
                alignas(64) float before[3][kSums];
                const float* const products[3] = {before[0], before[1], before[2]};
                for (int i = 0; i < 3; ++i)
                    multiply(i < 2 ? all.k : all.v, *weights[i], first / kBlock, column, before[i]);
                for (int half = 0; half < 2; ++half) {
                    Strip wanted[3];
                    hidden_gradients(products, half, own, wanted);
                    for (int i = 0; i < 3; ++i) store_right(wanted[i], hidden[i], 2 * row + half, column - begin);
                }
            }
        }
        for (int row = 0; row < down; ++row)
            for (int i = 0; i < 3; ++i)
                for (int column = 0; column < blocks; ++column)
                    multiply_onto(i < 2 ? all.k_transposed : all.v_transposed, start / kDepth, hidden[i], row, column,
                                  start > 0, bench.sums + ((row * 3 + i) * (kHiddenAtOnce / kBlock) + column) * kSums);
    }
    uint16_t* const results[3] = {task.to_gate, task.to_up, task.to_down};
    const int64_t at = static_cast<int64_t>(memory) * task.width * task.hidden;
    for (int row = 0; row < down; ++row)
        for (int i = 0; i < 3; ++i)
            for (int column = 0; column < blocks; ++column)
                for (int half = 0; half < 2; ++half)
                    store(rounded(bench.sums + ((row * 3 + i) * (kHiddenAtOnce / kBlock) + column) * kSums, half),
                          results[i] + at, task.width, task.hidden, 2 * row + half, begin + column);
}

void gradients(const LrmFastWeightGradients& task) {
    const int tokens = padded(task.tokens), width = padded(task.width), hidden = padded(task.hidden);
    const int at_once = std::min(tokens, kTokensAtOnce), sums = width / kBlock * 3 * (kHiddenAtOnce / kBlock);
    const size_t shared = sizeof(uint16_t) * static_cast<size_t>(width) * (3 * size_t(hidden) + 4 * size_t(tokens));
    const size_t each = 3 * sizeof(uint16_t) * size_t(at_once) * kHiddenAtOnce + sizeof(float) * kSums * size_t(sums);
    Scratch scratch(shared + each * static_cast<size_t>(task.threads));
    Written all = {scratch.tiles(width, hidden), scratch.tiles(width, hidden), scratch.tiles(width, hidden),
                   scratch.tiles(tokens, width), scratch.tiles(tokens, width), scratch.tiles(width, tokens),
                   scratch.tiles(width, tokens)};
    std::vector<Bench> benches;
    for (int i = 0; i < task.threads; ++i)
        benches.push_back({{scratch.tiles(at_once, kHiddenAtOnce), scratch.tiles(at_once, kHiddenAtOnce),
                            scratch.tiles(at_once, kHiddenAtOnce)},
                           scratch.sums(sums)});
    const int columns = hidden / kBlock, step = kHiddenAtOnce / kBlock;
#pragma omp parallel num_threads(task.threads)
    {
#ifdef _OPENMP
        const Bench& bench = benches[static_cast<size_t>(omp_get_thread_num())];
#else
        const Bench& bench = benches[0];
#endif
        configure();
        for (int memory = 0; memory < task.memories; ++memory) {
            const int64_t weights = static_cast<int64_t>(memory) * task.width * task.hidden;
            const int64_t said = static_cast<int64_t>(memory) * task.tokens * task.width;
            pack_right(task.gate + weights, task.width, task.hidden, all.gate);
            pack_right(task.up + weights, task.width, task.hidden, all.up);
            pack_right_transposed(task.down + weights, task.hidden, task.width, all.down_transposed);
            for_strips(task.k + said, task.tokens, task.width, [&](const Strip& strip, int row, int column) {
                store_left(strip, all.k, row, column);
                store_left_transposed(transpose_pairs(strip), all.k_transposed, row, column);
            });
            for_strips(task.v + said, task.tokens, task.width, [&](const Strip& strip, int row, int column) {
                store_left(strip, all.v, row, column);
                store_left_transposed(transpose_pairs(strip), all.v_transposed, row, column);
            });
#pragma omp barrier
#pragma omp for schedule(dynamic, 1)
            for (int begin = 0; begin < columns; begin += step)
                gradients_of(task, memory, all, bench, begin, std::min(begin + step, columns));
        }
        _tile_release();
    }
}

}  // namespace
}  // namespace lrm

// Return 0, or 1 where memory ran out.
LRM_EXPORT int32_t lrm_fast_weight_gradients(const LrmFastWeightGradients* task) {
    try {
        lrm::gradients(*task);
    } catch (const std::bad_alloc&) {
        return 1;
    }
    return 0;
}
