// Newton-Schulz in bfloat16 on the matrix units of x86 processors (AMX): products of 16x32 by 32x16 tiles, summed in
// float32. Against a general library it computes one triangle of the two symmetric products, never packs (each product
// writes its result in the layouts that the next one reads), and keeps the iterate where it is: a thread owns columns
// of it, which stay in its cache through all steps, and only the small square matrices are shared.
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "team.h"

namespace lrm {
namespace {

// One matrix.
struct Work {
    std::vector<Columns> columns;
    std::vector<double> squares;
    std::vector<float*> sums;
    Step step;

    Work(const LrmNewtonSchulz&, const Division& division, Scratch& scratch) : squares(division.parts) {
        const int rows = division.rows;
        for (int part = 0; part < division.parts; ++part) {
            const int width = division.width_of(part);
            columns.push_back({scratch.tiles(rows, width), scratch.tiles(rows, width), scratch.tiles(width, rows)});
            sums.push_back(scratch.sums(division.triangle()));
        }
        step = {scratch.tiles(rows, rows), scratch.tiles(rows, rows), scratch.tiles(rows, rows)};
    }
    static size_t bytes(const LrmNewtonSchulz&, const Division& division) {
        const size_t rows = division.rows, columns = division.columns, sums = division.triangle() * division.parts;
        return sizeof(uint16_t) * 3 * rows * (columns + rows) + sizeof(float) * kSums * sums;
    }
};

void write(const LrmNewtonSchulz& task, int matrix, int begin, const Tiles& x) {
    for (int row = 0; row < task.rows; ++row)
        for (int column = 0; column < x.columns / kDepth; ++column)
            Place(task, matrix, row, begin + column * kDepth).write(task.output, row_of(x, row, column));
}

void orthogonalise(const LrmNewtonSchulz& task, const Team& team, std::vector<Work>& works, Barrier& barrier,
                   uint16_t* next) {
    const Division& division = team.division;
    team.own_columns([&](int i, int part) {
        works[i].squares[part] =
            squares(task, team.first + i, task.input, division.begin(part), division.width_of(part));
    });
    barrier.wait();
    team.own_columns([&](int i, int part) {
        const float scale = 1.0f / (norm(works[i].squares) + task.epsilon);
        load(task, team.first + i, task.input, division.begin(part), scale, works[i].columns[part]);
        if (task.steps > 0) write_grams(works[i].columns[part], works[i].sums[part]);
    });
    for (int step = 1; step <= task.steps; ++step) {
        barrier.wait();
        team.own_blocks([&](int i, int row, int column) { add_grams(works[i].sums, works[i].step, row, column); });
        barrier.wait();
        team.own_blocks([&](int i, int row, int column) { write_polynomial(task, works[i].step, row, column); });
        barrier.wait();
        team.own_columns([&](int i, int part) {
            const Columns& own = works[i].columns[part];
            iterate(task, works[i].step.polynomial, own, own, next);
            if (step < task.steps) write_grams(own, works[i].sums[part]);
        });
    }
    team.own_columns([&](int i, int part) {
        write(task, team.first + i, division.begin(part), works[i].columns[part].x);
    });
    barrier.wait();
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
    return lrm::in_teams<lrm::Work>(*task, lrm::orthogonalise);
}
