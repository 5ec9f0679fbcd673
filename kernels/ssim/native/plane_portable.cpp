// The comparison with no special instructions.
#include "task.h"

#include "../../rasterizer/native/simd_portable.h"

#include "plane.h"

lrm::Sums lrm::compare_plane_portable(const Comparison& comparison, int plane, float* scratch) {
    return compare_plane(comparison, plane, scratch);
}
