// The comparison with AVX2.
#include "task.h"

#include "../../rasterizer/native/simd_avx2.h"

#include "plane.h"

lrm::Sums lrm::compare_plane_avx2(const Comparison& comparison, int plane, float* scratch) {
    return compare_plane(comparison, plane, scratch);
}
