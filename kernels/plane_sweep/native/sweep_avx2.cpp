// The sweep with AVX2.
#include "task.h"

#include "../../rasterizer/native/simd_avx2.h"

#include "texels_x86.h"

#include "sweep_pixels.h"

void lrm::sweep_pixels_avx2(const Sweep& sweep, int view, int64_t first, int count, float* scratch) {
    sweep_pixels(sweep, view, first, count, scratch);
}
