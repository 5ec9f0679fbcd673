// The sweep with no special instructions.
#include "task.h"

#include "../../rasterizer/native/simd_portable.h"

#include "texels_portable.h"

#include "sweep_pixels.h"

void lrm::sweep_pixels_portable(const Sweep& sweep, int view, int64_t first, int count, float* scratch) {
    sweep_pixels(sweep, view, first, count, scratch);
}
