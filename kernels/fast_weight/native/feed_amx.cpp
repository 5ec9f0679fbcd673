// Tokens through two layers with an activation in between, on the matrix units of x86 processors (AMX): the query of a
// memory, and the MLP of a block. Hidden activations live in the cache of the thread that makes them.
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
//
// f(x) = silu(x gate) (x up) down, or without `up` gelu(x gate) down. With `transposed` the weights are those of linear
// layers: gate [hidden width], down [width hidden].
struct LrmFeed {
    int32_t memories, tokens, width, hidden, transposed, threads;
    const float *gate, *up;  // [memories width hidden]
    const float* down;       // [memories hidden width]
    const uint16_t* x;       // [memories tokens width]
    uint16_t* result;        // [memories tokens width]
};
}

namespace lrm {
namespace {

constexpr int kRowsAtOnce = 128;  // Tokens that a thread takes through both layers at a time.

// Take some tokens, in blocks, through f.
void feed_rows(const LrmFeed& task, int memory, const Tiles& gate, const Tiles& up, const Tiles& down, const Tiles& x,
               const Tiles& activated, int begin, int end) {
    const int64_t at = static_cast<int64_t>(memory) * task.tokens * task.width;
    for (int row = begin; row < end; ++row)
        for (int half = 0; half < 2; ++half)
            for (int column = 0; column < x.columns / kDepth; ++column)
                store_left(load(task.x + at, task.tokens, task.width, 2 * row + half, column), x,
                           2 * (row - begin) + half, column);
    for (int column = 0; column < gate.columns / kBlock; ++column)
        for (int row = 0; row < end - begin; ++row) {
            alignas(64) float opening[kSums], values[kSums];
            multiply(x, gate, row, column, opening);
            if (task.up != nullptr) multiply(x, up, row, column, values);
            for (int half = 0; half < 2; ++half) {
                Strip strip;
                for (int i = 0; i < kSide; ++i) {
                    __m512 sides[2];
                    for (int side = 0; side < 2; ++side) {
                        const __m512 before = _mm512_load_ps(sums_of(opening, half, i, side));
                        if (task.up == nullptr) {
                            sides[side] = gelu(before);
                            continue;
                        }
                        const __m512 value = _mm512_load_ps(sums_of(values, half, i, side));
                        sides[side] = _mm512_mul_ps(silu(before), value);
                    }
                    strip.rows[i] = narrow(sides[0], sides[1]);
                }
                store_left(strip, activated, 2 * row + half, column);
            }
        }
    for (int column = 0; column < down.columns / kBlock; ++column)
        for (int row = 0; row < end - begin; ++row) {
            alignas(64) float block[kSums];
            multiply(activated, down, row, column, block);
            for (int half = 0; half < 2; ++half) {
                const int strip = 2 * (row + begin) + half;
                store(rounded(block, half), task.result + at, task.tokens, task.width, strip, column);
            }
        }
}

void feed(const LrmFeed& task) {
    const int width = padded(task.width), hidden = padded(task.hidden), blocks = padded(task.tokens) / kBlock;
    const size_t shared = sizeof(uint16_t) * 3 * static_cast<size_t>(width) * static_cast<size_t>(hidden);
    const size_t each = sizeof(uint16_t) * kRowsAtOnce * static_cast<size_t>(width + hidden);
    Scratch scratch(shared + each * static_cast<size_t>(task.threads));
    const Tiles gate = scratch.tiles(width, hidden), up = scratch.tiles(width, hidden);
    const Tiles down = scratch.tiles(hidden, width);
    std::vector<Tiles> inputs, activations;
    for (int i = 0; i < task.threads; ++i) {
        inputs.push_back(scratch.tiles(kRowsAtOnce, width));
        activations.push_back(scratch.tiles(kRowsAtOnce, hidden));
    }
    const int step = kRowsAtOnce / kBlock;
#pragma omp parallel num_threads(task.threads)
    {
#ifdef _OPENMP
        const size_t thread = static_cast<size_t>(omp_get_thread_num());
#else
        const size_t thread = 0;
#endif
        configure();
        for (int memory = 0; memory < task.memories; ++memory) {
            const int64_t weights = static_cast<int64_t>(memory) * task.width * task.hidden;
            if (task.transposed) {
                pack_right_transposed(task.gate + weights, task.hidden, task.width, gate);
                pack_right_transposed(task.down + weights, task.width, task.hidden, down);
            } else {
                pack_right(task.gate + weights, task.width, task.hidden, gate);
                pack_right(task.up + weights, task.width, task.hidden, up);
                pack_right(task.down + weights, task.hidden, task.width, down);
            }
#pragma omp barrier
#pragma omp for schedule(dynamic, 1)
            for (int begin = 0; begin < blocks; begin += step)
                feed_rows(task, memory, gate, up, down, inputs[thread], activations[thread], begin,
                          std::min(begin + step, blocks));
        }
        _tile_release();
    }
}

}  // namespace
}  // namespace lrm

// Return 0, or 1 where memory ran out.
LRM_EXPORT int32_t lrm_feed(const LrmFeed* task) {
    try {
        lrm::feed(*task);
    } catch (const std::bad_alloc&) {
        return 1;
    }
    return 0;
}
