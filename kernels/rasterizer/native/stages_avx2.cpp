// The stages for processors with AVX2 and FMA.
// Headers with code live in an unnamed namespace, so that the copies of the instruction sets never meet in the linker.
#include "simd_avx2.h"

#include <cstring>

#include "lists.h"

#include "gaussian_math.h"

#include "bin.h"

#include "project.h"

#include "project_backward.h"

#include "tile_order.h"

#include "tiles.h"

#include "tiles_backward.h"

namespace lrm {
const Stages kAvx2Stages = {"avx2", project_chunk, draw_tile, draw_tile_backward, project_chunk_backward};
}  // namespace lrm
