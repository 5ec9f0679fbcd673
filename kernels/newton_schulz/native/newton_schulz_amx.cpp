// Newton-Schulz in bfloat16 on the matrix units of x86 processors (AMX): products of 16x32 by 32x16 tiles, summed in
// float32. Against a general library it computes one triangle of the two symmetric products, never packs (each product
// writes its result in the layouts that the next one reads), and keeps the iterate where it is: a thread owns columns
// of it, which stay in its cache through all steps, and only the small square matrices are shared.
#include "tiles.h"
#include "working_memory.h"

#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <new>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif

#define LRM_EXPORT extern "C" __attribute__((visibility("default")))

extern "C" {

// Plain C. The matrices are contiguous and lie wide: rows <= columns.
struct LrmNewtonSchulz {
    int32_t matrices, rows, columns, steps, threads;
    float a, b, c, epsilon;
    const uint16_t* input;  // [matrices rows columns]
    uint16_t* output;       // [matrices rows columns]
};
}

namespace lrm {
namespace {

// Columns that a thread works on take so much at most, three times over: most of its cache.
constexpr int64_t kColumnBytes = 1800 << 10;

// Some columns of the iterate X: as a left factor, as a right factor, and transposed as a right factor. `grams` are
// the blocks of the upper triangle of their part of X X^T.
struct Columns {
    int begin;
    Tiles x, x_right, x_transposed;
    float* grams;
};

// One matrix: its columns, X X^T both ways, and the polynomial in it.
struct Work {
    std::vector<Columns> columns;
    Tiles gram, gram_right, polynomial;
    float scale;
};

// Write this part of X X^T, one triangle of it, for the others to add to theirs.
void write_grams(const Columns& own) {
    const int rows = own.x.rows / kBlock;
    float* block = own.grams;
    for (int row = 0; row < rows; ++row)
        for (int column = row; column < rows; ++column, block += kSums)
            multiply(own.x, own.x_transposed, row, column, block);
}

// Add up the parts of one block of X X^T, always in the same order, and write it and its mirror image.
void add_grams(const Work& work, int row, int column) {
    const int rows = work.gram.rows / kBlock;
    const int64_t at = (static_cast<int64_t>(row) * rows - row * (row - 1) / 2 + column - row) * kSums;
    for (int half = 0; half < 2; ++half) {
        Strip strip;
        for (int i = 0; i < kSide; ++i) {
            __m512 low = _mm512_setzero_ps(), high = low;
            for (const Columns& part : work.columns) {
                low = _mm512_add_ps(low, _mm512_load_ps(sums_of(part.grams + at, half, i, 0)));
                high = _mm512_add_ps(high, _mm512_load_ps(sums_of(part.grams + at, half, i, 1)));
            }
            strip.rows[i] = narrow(low, high);
        }
        store_left(strip, work.gram, 2 * row + half, column);
        store_right(strip, work.gram_right, 2 * row + half, column);
        if (row == column) continue;
        const Strip turned = transpose_pairs(strip);
        store_left_transposed(turned, work.gram, 2 * row + half, column);
        store_right_transposed(turned, work.gram_right, 2 * row + half, column);
    }
}

void write_polynomial(const LrmNewtonSchulz& task, const Work& work, int row, int column) {
    alignas(64) float block[kSums];
    multiply(work.gram, work.gram_right, row, column, block);
    for (int half = 0; half < 2; ++half) {
        const Strip strip = combine(task.c, block, half, task.b, work.gram, 2 * row + half, column);
        store_left(strip, work.polynomial, 2 * row + half, column);
        if (row != column)
            store_left_transposed(transpose_pairs(strip), work.polynomial, 2 * row + half, column);
    }
}

// Replace columns of X by a X + P X. The right factor is read until a block column is done, and replaced then.
void iterate(const LrmNewtonSchulz& task, const Work& work, const Columns& own, uint16_t* next) {
    const int rows = own.x.rows / kBlock;
    const Tiles written = {own.x.rows, kBlock, next};
    for (int column = 0; column < own.x.columns / kBlock; ++column) {
        for (int row = 0; row < rows; ++row) {
            alignas(64) float block[kSums];
            multiply(work.polynomial, own.x_right, row, column, block);
            for (int half = 0; half < 2; ++half) {
                const Strip strip = combine(1.0f, block, half, task.a, own.x, 2 * row + half, column);
                store_left(strip, own.x, 2 * row + half, column);
                store_right(strip, written, 2 * row + half, 0);
                store_right_transposed(transpose_pairs(strip), own.x_transposed, 2 * row + half, column);
            }
        }
        std::memcpy(own.x_right.right(0, 2 * column), next, sizeof(uint16_t) * own.x.rows * kBlock);
    }
}

float inverse_norm(const LrmNewtonSchulz& task, const uint16_t* matrix) {
    double total = 0.0;
    for (int row = 0; row < task.rows; ++row) {
        __m512 sum = _mm512_setzero_ps();
        const uint16_t* values = matrix + static_cast<int64_t>(row) * task.columns;
        for (int column = 0; column < task.columns; column += kSide) {
            const int left = std::min(task.columns - column, kSide);
            const __m512 value = widen(_mm256_maskz_loadu_epi16((1u << left) - 1u, values + column));
            sum = _mm512_fmadd_ps(value, value, sum);
        }
        total += _mm512_reduce_add_ps(sum);
    }
    return 1.0f / (static_cast<float>(std::sqrt(total)) + task.epsilon);
}

// The columns of one row of a strip that the matrix has.
__mmask32 inside(const LrmNewtonSchulz& task, int row, int column) {
    const int left = row < task.rows ? std::clamp(task.columns - column, 0, kDepth) : 0;
    return static_cast<__mmask32>((uint64_t{1} << left) - 1u);
}

void load(const LrmNewtonSchulz& task, const Columns& own, const uint16_t* matrix, float scale) {
    for (int row = 0; row < own.x.rows / kSide; ++row)
        for (int column = 0; column < own.x.columns / kDepth; ++column) {
            Strip strip;
            for (int i = 0; i < kSide; ++i) {
                const int from = own.begin + column * kDepth;
                const int64_t at = static_cast<int64_t>(row * kSide + i) * task.columns + from;
                const __m512i old = _mm512_maskz_loadu_epi16(inside(task, row * kSide + i, from), matrix + at);
                strip.rows[i] = narrow(
                    _mm512_mul_ps(widen(_mm512_castsi512_si256(old)), _mm512_set1_ps(scale)),
                    _mm512_mul_ps(widen(_mm512_extracti64x4_epi64(old, 1)), _mm512_set1_ps(scale)));
            }
            store_left(strip, own.x, row, column);
            store_right(strip, own.x_right, row, column);
            store_right_transposed(transpose_pairs(strip), own.x_transposed, row, column);
        }
}

void write(const LrmNewtonSchulz& task, const Columns& own, uint16_t* matrix) {
    for (int row = 0; row < own.x.rows / kSide; ++row)
        for (int column = 0; column < own.x.columns / kDepth; ++column) {
            const uint16_t* tile = own.x.left(row, column);
            for (int i = 0; i < kSide; ++i) {
                const int from = own.begin + column * kDepth;
                const int64_t at = static_cast<int64_t>(row * kSide + i) * task.columns + from;
                const __mmask32 mask = inside(task, row * kSide + i, from);
                _mm512_mask_storeu_epi16(matrix + at, mask, _mm512_load_si512(tile + i * kDepth));
            }
        }
}

// Matrices that are worked on together, and the threads that do it, each on the same columns all the time.
class Team {
    const LrmNewtonSchulz& task;
    const int first, count, threads, blocks;
    std::vector<Work>& works;
    Barrier& barrier;

public:
    Team(const LrmNewtonSchulz& task_, int first_, int count_, int threads_, std::vector<Work>& works_,
         Barrier& barrier_)
        : task(task_), first(first_), count(count_), threads(threads_), blocks((task_.rows + kBlock - 1) / kBlock),
          works(works_), barrier(barrier_) {}

    void run(int thread, uint16_t* next) {
        const int64_t size = static_cast<int64_t>(task.rows) * task.columns;
        for (int i = thread; i < count; i += threads)
            works[i].scale = inverse_norm(task, task.input + (first + i) * size);
        barrier.wait();
        own_columns(thread, [&](int i, const Columns& own) {
            load(task, own, task.input + (first + i) * size, works[i].scale);
            if (task.steps > 0) write_grams(own);
        });
        for (int step = 1; step <= task.steps; ++step) {
            barrier.wait();
            own_blocks(thread, [&](const Work& work, int row, int column) { add_grams(work, row, column); });
            barrier.wait();
            own_blocks(thread, [&](const Work& work, int row, int column) {
                write_polynomial(task, work, row, column);
            });
            barrier.wait();
            own_columns(thread, [&](int i, const Columns& own) {
                iterate(task, works[i], own, next);
                if (step < task.steps) write_grams(own);
            });
        }
        own_columns(thread, [&](int i, const Columns& own) { write(task, own, task.output + (first + i) * size); });
        barrier.wait();
    }

private:
    template <class Body>
    void own_columns(int thread, Body body) {
        int job = 0;
        for (int i = 0; i < count; ++i)
            for (const Columns& own : works[i].columns)
                if (job++ % threads == thread) body(i, own);
    }

    template <class Body>
    void own_blocks(int thread, Body body) {
        int job = 0;
        for (int i = 0; i < count; ++i)
            for (int row = 0; row < blocks; ++row)
                for (int column = row; column < blocks; ++column)
                    if (job++ % threads == thread) body(works[i], row, column);
    }
};

int padded(int size) { return (size + kBlock - 1) / kBlock * kBlock; }

void orthogonalise(const LrmNewtonSchulz& task) {
    const int rows = padded(task.rows), columns = padded(task.columns), blocks = rows / kBlock;
    const int triangle = blocks * (blocks + 1) / 2;
    // The parts depend on the shape alone, so that sums do not depend on the number of threads.
    const int64_t bytes = int64_t{3} * sizeof(uint16_t) * rows * columns;
    const int wanted = static_cast<int>((bytes + kColumnBytes - 1) / kColumnBytes);
    const int width = padded((columns + wanted - 1) / wanted), parts = (columns + width - 1) / width;
    const int together = std::clamp(task.threads / parts, 1, task.matrices);
    const size_t elements = 3 * static_cast<size_t>(rows) * static_cast<size_t>(columns + rows);
    const size_t each = sizeof(uint16_t) * elements + sizeof(float) * kSums * triangle * static_cast<size_t>(parts);
    const size_t next = sizeof(uint16_t) * rows * kBlock;
    const int threads = std::clamp(task.threads, 1, std::max(together * parts, 1));
    Scratch scratch(each * together + next * threads);
    std::vector<Work> works(static_cast<size_t>(together));
    for (Work& work : works) {
        for (int begin = 0; begin < columns; begin += width) {
            const int own = std::min(width, columns - begin);
            work.columns.push_back({begin, scratch.tiles(rows, own), scratch.tiles(rows, own), scratch.tiles(own, rows),
                                    scratch.sums(triangle)});
        }
        work.gram = scratch.tiles(rows, rows), work.gram_right = scratch.tiles(rows, rows);
        work.polynomial = scratch.tiles(rows, rows);
    }
    std::vector<uint16_t*> nexts;
    for (int i = 0; i < threads; ++i) nexts.push_back(scratch.tiles(rows, kBlock).start);
    Barrier barrier;
#pragma omp parallel num_threads(threads)
    {
        int thread = 0, given = 1;
#ifdef _OPENMP
        thread = omp_get_thread_num(), given = omp_get_num_threads();
#endif
#pragma omp single
        barrier.expect(given);
        configure();
        for (int first = 0; first < task.matrices; first += together)
            Team(task, first, std::min(together, task.matrices - first), given, works, barrier)
                .run(thread, nexts[static_cast<size_t>(thread)]);
        _tile_release();
    }
}

}  // namespace
}  // namespace lrm

// Return whether this processor has the matrix units and the system lets this process use them.
LRM_EXPORT int32_t lrm_newton_schulz_available() {
    uint32_t eax, ebx, ecx, edx;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return 0;
    const bool has_tiles = edx >> 22 & 1 && edx >> 24 & 1;
    if (!has_tiles || !__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx)) return 0;
    const bool has_vectors = eax >> 5 & 1 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    constexpr long kRequestPermission = 0x1023, kTileData = 18;
    return has_vectors && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

// Return 0, or 1 where memory ran out.
LRM_EXPORT int32_t lrm_newton_schulz(const LrmNewtonSchulz* task) {
    try {
        lrm::orthogonalise(*task);
    } catch (const std::bad_alloc&) {
        return 1;
    }
    return 0;
}
