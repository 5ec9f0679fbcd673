// How matrices are divided among threads, and how they come in and go out.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "iteration.h"
#include "working_memory.h"

namespace lrm {

// Columns that a thread works on take so much at most, three times over: most of its cache.
constexpr int64_t kColumnBytes = 1800 << 10;

// Sizes in whole blocks. The parts depend on the shape alone, so that sums do not depend on the number of threads.
struct Division {
    int rows, columns, width, parts, together, threads;

    explicit Division(const LrmNewtonSchulz& task) : rows(padded(task.rows)), columns(padded(task.columns)) {
        const int64_t bytes = int64_t{3} * sizeof(uint16_t) * rows * columns;
        const int wanted = static_cast<int>((bytes + kColumnBytes - 1) / kColumnBytes);
        width = padded((columns + wanted - 1) / wanted), parts = (columns + width - 1) / width;
        together = std::clamp(task.threads / parts, 1, task.matrices);
        threads = std::clamp(task.threads, 1, together * parts);
    }
    int triangle() const { return in_triangle(rows / kBlock, rows / kBlock, rows / kBlock); }
    int begin(int part) const { return part * width; }
    int width_of(int part) const { return std::min(width, columns - part * width); }
};

// Matrices that are worked on together, and the threads that do it, each on the same columns all the time.
struct Team {
    const Division& division;
    const int first, count, threads, thread;

    template <class Body>
    void own_columns(Body body) const {
        int job = 0;
        for (int i = 0; i < count; ++i)
            for (int part = 0; part < division.parts; ++part)
                if (job++ % threads == thread) body(i, part);
    }

    // The blocks of upper triangles: neighbours, as what another thread has written comes from afar.
    template <class Body>
    void own_blocks(Body body) const {
        int64_t job = 0;
        const int blocks = division.rows / kBlock, jobs = count * division.triangle();
        for (int i = 0; i < count; ++i)
            for (int row = 0; row < blocks; ++row)
                for (int column = row; column < blocks; ++column)
                    if (job++ * threads / jobs == thread) body(i, row, column);
    }
};

// Let each thread run its part of the work on as many matrices at a time as there are threads for. Return 0, or 1 where
// memory ran out.
template <class Work, class Body>
int32_t in_teams(const LrmNewtonSchulz& task, Body body) try {
    const Division division(task);
    const size_t next = sizeof(uint16_t) * division.rows * kBlock;
    Scratch scratch(Work::bytes(task, division) * division.together + next * division.threads);
    std::vector<Work> works;
    for (int i = 0; i < division.together; ++i) works.emplace_back(task, division, scratch);
    std::vector<uint16_t*> nexts;
    for (int i = 0; i < division.threads; ++i) nexts.push_back(scratch.tiles(division.rows, kBlock).start);
    Barrier barrier;
#pragma omp parallel num_threads(division.threads)
    {
        int thread = 0, given = 1;
#ifdef _OPENMP
        thread = omp_get_thread_num(), given = omp_get_num_threads();
#endif
#pragma omp single
        barrier.expect(given);
        configure();
        for (int first = 0; first < task.matrices; first += division.together) {
            const Team team{division, first, std::min(division.together, task.matrices - first), given, thread};
            body(task, team, works, barrier, nexts[thread]);
        }
        _tile_release();
    }
    return 0;
} catch (const std::bad_alloc&) {
    return 1;
}

// 32 columns of a row of a matrix, of which there may be fewer in memory.
struct Place {
    int64_t at;
    __mmask32 mask;

    Place(const LrmNewtonSchulz& task, int matrix, int row, int column)
        : at((static_cast<int64_t>(matrix) * task.rows + row) * task.columns + column) {
        const int left = row < task.rows ? std::clamp(task.columns - column, 0, kDepth) : 0;
        mask = static_cast<__mmask32>((uint64_t{1} << left) - 1u);
    }
    __m512i read(const uint16_t* values) const { return _mm512_maskz_loadu_epi16(mask, values + at); }
    void write(uint16_t* values, __m512i row) const { _mm512_mask_storeu_epi16(values + at, mask, row); }
};

inline __m512i row_of(const Tiles& x, int row, int column) {
    return _mm512_load_si512(x.left(row / kSide, column) + row % kSide * kDepth);
}

inline __m512i scaled(__m512i values, float scale) {
    const Wide wide(values);
    return narrow(_mm512_mul_ps(wide.low, _mm512_set1_ps(scale)), _mm512_mul_ps(wide.high, _mm512_set1_ps(scale)));
}

// Add up squares of some columns.
inline double squares(const LrmNewtonSchulz& task, int matrix, const uint16_t* values, int begin, int width) {
    double total = 0.0;
    for (int row = 0; row < task.rows; ++row) {
        __m512 sum = _mm512_setzero_ps();
        for (int column = begin; column < begin + width; column += kDepth) {
            const Wide wide(Place(task, matrix, row, column).read(values));
            sum = _mm512_fmadd_ps(wide.high, wide.high, _mm512_fmadd_ps(wide.low, wide.low, sum));
        }
        total += _mm512_reduce_add_ps(sum);
    }
    return total;
}

inline float norm(const std::vector<double>& squares) {
    return static_cast<float>(std::sqrt(std::accumulate(squares.begin(), squares.end(), 0.0)));
}

// Read columns from `begin` on, times `scale`.
inline void load(const LrmNewtonSchulz& task, int matrix, const uint16_t* values, int begin, float scale,
                 const Columns& own) {
    for (int row = 0; row < own.x.rows / kSide; ++row)
        for (int column = 0; column < own.x.columns / kDepth; ++column) {
            Strip strip;
            for (int i = 0; i < kSide; ++i) {
                const Place place(task, matrix, row * kSide + i, begin + column * kDepth);
                strip.rows[i] = scaled(place.read(values), scale);
            }
            store_left(strip, own.x, row, column);
            store_right(strip, own.x_right, row, column);
            if (own.x_transposed.start) store_right_transposed(transpose_pairs(strip), own.x_transposed, row, column);
        }
}

}  // namespace lrm
