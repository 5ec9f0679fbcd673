// Cameras, of which there are few: compiled once, in double precision.
#pragma once

#include <cmath>
#include <cstdint>
#include <utility>

#include "task.h"

namespace lrm {

// Invert a 4x4 matrix by elimination with the largest pivots; one that cannot be inverted gives infinity or NaN.
inline void invert(const float* matrix, double* inverse) {
    double rows[4][8] = {};
    for (int i = 0; i < 4; ++i) {
        for (int j = 0; j < 4; ++j) rows[i][j] = matrix[4 * i + j];
        rows[i][4 + i] = 1;
    }
    for (int column = 0; column < 4; ++column) {
        int pivot = column;
        for (int i = column + 1; i < 4; ++i)
            if (std::fabs(rows[i][column]) > std::fabs(rows[pivot][column])) pivot = i;
        for (int j = 0; j < 8; ++j) std::swap(rows[column][j], rows[pivot][j]);
        const double scale = 1 / rows[column][column];
        for (int j = 0; j < 8; ++j) rows[column][j] *= scale;
        for (int i = 0; i < 4; ++i) {
            const double factor = i == column ? 0 : rows[i][column];
            for (int j = 0; j < 8; ++j) rows[i][j] -= factor * rows[column][j];
        }
    }
    for (int i = 0; i < 16; ++i) inverse[i] = rows[i / 4][4 + i % 4];
}

// Add what the gradient to the camera's centre, the last column of the inverse, makes of the matrix.
inline void add_center_gradient(const double* inverse, const double* gradient, float* out) {
    for (int i = 0; i < 4; ++i) {
        double row = 0;
        for (int k = 0; k < 3; ++k) row += gradient[k] * inverse[4 * k + i];
        for (int j = 0; j < 4; ++j) out[4 * i + j] -= static_cast<float>(row * inverse[4 * j + 3]);
    }
}

inline bool all_finite(const float* values, int64_t count) {
    float sum = 0;
    for (int64_t i = 0; i < count; ++i) sum += values[i] - values[i];
    return sum == 0;
}

// Return a bit per input that is not finite: 32 world_to_cam, 64 intrinsics, 128 background.
inline uint32_t check_cameras(const LrmTask& task) {
    const int64_t images = static_cast<int64_t>(task.scenes) * task.views;
    uint32_t bad = all_finite(task.world_to_cam, 16 * images) ? 0 : 32;
    bad |= all_finite(task.intrinsics, 4 * images) ? 0 : 64;
    return bad | (!task.background || all_finite(task.background, 3 * images) ? 0 : 128);
}

}  // namespace lrm
