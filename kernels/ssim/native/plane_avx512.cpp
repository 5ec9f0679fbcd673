// The comparison with AVX-512.
#include "task.h"

#include "../../rasterizer/native/simd_avx512.h"

#include "plane.h"

lrm::Sums lrm::compare_plane_avx512(const Comparison& comparison, int plane, float* scratch) {
    return compare_plane(comparison, plane, scratch);
}
