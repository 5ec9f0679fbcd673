// The backward pass of Newton-Schulz on the matrix units: it takes the steps again, keeping of each what the way back
// reads, and goes back through them with the slope, the gradient by the iterate, divided among threads like it.
#include "team.h"

namespace lrm {
namespace {

// What a norm is taken for before anything is divided by it.
constexpr float kLeastSize = 1e-30f;

// One matrix: all iterates, which share the left factor, all steps, and the slope.
struct Work {
    std::vector<std::vector<Columns>> iterates;
    std::vector<Step> steps;
    std::vector<Columns> slope;
    std::vector<double> squares, slope_squares, radial;
    std::vector<float*> sums;
    Tiles both, both_right, by_gram;

    Work(const LrmNewtonSchulz& task, const Division& division, Scratch& scratch)
        : iterates(kept(task)), squares(division.parts), slope_squares(division.parts), radial(division.parts) {
        const int rows = division.rows, blocks = rows / kBlock;
        for (int part = 0; part < division.parts; ++part) {
            const int width = division.width_of(part);
            const Tiles x = scratch.tiles(rows, width);
            for (auto& iterate : iterates)
                iterate.push_back({x, scratch.tiles(rows, width), scratch.tiles(width, rows)});
            slope.push_back({scratch.tiles(rows, width), scratch.tiles(rows, width), {}});
            sums.push_back(scratch.sums(blocks * blocks));
        }
        for (int step = 0; step < task.steps; ++step)
            steps.push_back({scratch.tiles(rows, rows), scratch.tiles(rows, rows), scratch.tiles(rows, rows)});
        both = scratch.tiles(rows, rows), both_right = scratch.tiles(rows, rows), by_gram = scratch.tiles(rows, rows);
    }
    static size_t bytes(const LrmNewtonSchulz& task, const Division& division) {
        const size_t rows = division.rows, columns = division.columns, parts = division.parts, steps = task.steps;
        const size_t elements = rows * columns * (2 * kept(task) + 3) + rows * rows * 3 * (steps + 1);
        return sizeof(uint16_t) * elements + sizeof(float) * rows * rows * parts;
    }

private:
    // The last iterate is the result, which nothing asks for.
    static size_t kept(const LrmNewtonSchulz& task) { return std::max(task.steps, 1); }
};

// Write this part of slope X^T for the others to add to theirs.
void write_products(const Tiles& slope, const Tiles& x_transposed, float* sums) {
    const int rows = slope.rows / kBlock;
    for (int row = 0; row < rows; ++row)
        for (int column = 0; column < rows; ++column, sums += kSums) multiply(slope, x_transposed, row, column, sums);
}

// Add up the parts of one block of slope X^T and of its transpose: the gradient by the polynomial, twice.
void add_products(const Work& work, int row, int column) {
    const int rows = work.both.rows / kBlock;
    const int64_t tile = int64_t{4} * (row * rows + column), mirrored = int64_t{4} * (column * rows + row);
    for (int half = 0; half < 2; ++half) {
        __m512 sides[2][kSide];
        for (int side = 0; side < 2; ++side) {
            const Strip one = add_up(work.sums, tile + 2 * half + side);
            const Strip other = transpose_pairs(add_up(work.sums, mirrored + 2 * side + half));
            for (int i = 0; i < kSide; ++i)
                sides[side][i] = _mm512_add_ps(_mm512_castsi512_ps(one.rows[i]), _mm512_castsi512_ps(other.rows[i]));
        }
        Strip strip;
        for (int i = 0; i < kSide; ++i) strip.rows[i] = narrow(sides[0][i], sides[1][i]);
        store_symmetric(strip, work.both, &work.both_right, 2 * row + half, column);
    }
}

// Write the gradient by X X^T, plus its transpose.
void write_by_gram(const LrmNewtonSchulz& task, const Work& work, const Step& step, int row, int column) {
    alignas(64) float block[kSums];
    start_sums();
    add_product(work.both, step.gram_right, row, column);
    add_product(step.gram, work.both_right, row, column);
    store_sums(block);
    for (int half = 0; half < 2; ++half) {
        const Strip strip = combine(task.c, block, half, task.b, work.both, 2 * row + half, column);
        store_symmetric(strip, work.by_gram, nullptr, 2 * row + half, column);
    }
}

// Replace columns of the slope by a slope + P slope + by_gram X.
void go_back(const LrmNewtonSchulz& task, const Work& work, const Tiles& polynomial, const Tiles& x_right,
             const Columns& slope, uint16_t* next) {
    const Tiles written = {slope.x.rows, kBlock, next};
    for (int column = 0; column < slope.x.columns / kBlock; ++column) {
        for (int row = 0; row < slope.x.rows / kBlock; ++row) {
            alignas(64) float block[kSums];
            start_sums();
            add_product(polynomial, slope.x_right, row, column);
            add_product(work.by_gram, x_right, row, column);
            store_sums(block);
            for (int half = 0; half < 2; ++half) {
                const Strip strip = combine(1.0f, block, half, task.a, slope.x, 2 * row + half, column);
                store_left(strip, slope.x, 2 * row + half, column);
                store_right(strip, written, 2 * row + half, 0);
            }
        }
        std::memcpy(slope.x_right.right(0, 2 * column), next, sizeof(uint16_t) * slope.x.rows * kBlock);
    }
}

void load_both(const LrmNewtonSchulz& task, const Team& team, std::vector<Work>& works, Barrier& barrier) {
    const Division& division = team.division;
    team.own_columns([&](int i, int part) {
        const int begin = division.begin(part), width = division.width_of(part);
        works[i].squares[part] = squares(task, team.first + i, task.input, begin, width);
        works[i].slope_squares[part] = squares(task, team.first + i, task.slope, begin, width);
    });
    barrier.wait();
    // The pass is linear in the slope, which may have any size: it goes in with norm one.
    team.own_columns([&](int i, int part) {
        Work& work = works[i];
        const float scale = 1.0f / (norm(work.squares) + task.epsilon);
        const float slope_scale = 1.0f / std::max(norm(work.slope_squares), kLeastSize);
        load(task, team.first + i, task.input, division.begin(part), scale, work.iterates[0][part]);
        load(task, team.first + i, task.slope, division.begin(part), slope_scale, work.slope[part]);
    });
}

void take_steps(const LrmNewtonSchulz& task, const Team& team, std::vector<Work>& works, Barrier& barrier,
                uint16_t* next) {
    for (int step = 0; step < task.steps; ++step) {
        team.own_columns([&](int i, int part) {
            const Columns& x = works[i].iterates[step][part];
            if (step > 0)
                iterate(task, works[i].steps[step - 1].polynomial, works[i].iterates[step - 1][part], x, next);
            write_grams(x, works[i].sums[part]);
        });
        barrier.wait();
        team.own_blocks([&](int i, int row, int column) {
            add_grams(works[i].sums, works[i].steps[step], row, column);
        });
        barrier.wait();
        team.own_blocks([&](int i, int row, int column) {
            write_polynomial(task, works[i].steps[step], row, column);
        });
        barrier.wait();
    }
}

void take_them_back(const LrmNewtonSchulz& task, const Team& team, std::vector<Work>& works, Barrier& barrier,
                    uint16_t* next) {
    for (int step = task.steps - 1; step >= 0; --step) {
        team.own_columns([&](int i, int part) {
            write_products(works[i].slope[part].x, works[i].iterates[step][part].x_transposed, works[i].sums[part]);
        });
        barrier.wait();
        team.own_blocks([&](int i, int row, int column) { add_products(works[i], row, column); });
        barrier.wait();
        team.own_blocks([&](int i, int row, int column) {
            write_by_gram(task, works[i], works[i].steps[step], row, column);
        });
        barrier.wait();
        team.own_columns([&](int i, int part) {
            go_back(task, works[i], works[i].steps[step].polynomial, works[i].iterates[step][part].x_right,
                    works[i].slope[part], next);
        });
    }
}

// Tell each row of the slope and of the matrix of norm one, as the steps had it.
template <class Body>
void each_row(const LrmNewtonSchulz& task, int matrix, int begin, float scale, const Tiles& slope, Body body) {
    for (int row = 0; row < task.rows; ++row)
        for (int column = 0; column < slope.columns / kDepth; ++column) {
            const Place place(task, matrix, row, begin + column * kDepth);
            body(place, Wide(row_of(slope, row, column)), Wide(scaled(place.read(task.input), scale)));
        }
}

// Go back through the division by the norm, and write the result.
void finish(const LrmNewtonSchulz& task, const Team& team, std::vector<Work>& works, Barrier& barrier) {
    const Division& division = team.division;
    team.own_columns([&](int i, int part) {
        Work& work = works[i];
        const float scale = 1.0f / (norm(work.squares) + task.epsilon);
        __m512d total = _mm512_setzero_pd();
        each_row(task, team.first + i, division.begin(part), scale, work.slope[part].x,
                 [&](const Place&, const Wide& slope, const Wide& unit) {
            const __m512 products = _mm512_fmadd_ps(slope.high, unit.high, _mm512_mul_ps(slope.low, unit.low));
            total = _mm512_add_pd(total, _mm512_add_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(products)),
                                                       _mm512_cvtps_pd(_mm512_extractf32x8_ps(products, 1))));
        });
        work.radial[part] = _mm512_reduce_add_pd(total);
    });
    barrier.wait();
    team.own_columns([&](int i, int part) {
        const Work& work = works[i];
        const float size = norm(work.squares), divisor = size + task.epsilon;
        const double product = std::accumulate(work.radial.begin(), work.radial.end(), 0.0);
        const __m512 radial = _mm512_set1_ps(static_cast<float>(product) * divisor / std::max(size, kLeastSize));
        const __m512 factor = _mm512_set1_ps(norm(work.slope_squares) / divisor);
        each_row(task, team.first + i, division.begin(part), 1.0f / divisor, work.slope[part].x,
                 [&](const Place& place, const Wide& slope, const Wide& unit) {
            const __m512 low = _mm512_fnmadd_ps(radial, unit.low, slope.low);
            const __m512 high = _mm512_fnmadd_ps(radial, unit.high, slope.high);
            place.write(task.output, narrow(_mm512_mul_ps(factor, low), _mm512_mul_ps(factor, high)));
        });
    });
    barrier.wait();
}

void differentiate(const LrmNewtonSchulz& task, const Team& team, std::vector<Work>& works, Barrier& barrier,
                   uint16_t* next) {
    load_both(task, team, works, barrier);
    take_steps(task, team, works, barrier, next);
    take_them_back(task, team, works, barrier, next);
    finish(task, team, works, barrier);
}

}  // namespace
}  // namespace lrm

// Return 0, or 1 where memory ran out.
LRM_EXPORT int32_t lrm_newton_schulz_backward(const LrmNewtonSchulz* task) {
    return lrm::in_teams<lrm::Work>(*task, lrm::differentiate);
}
