// Lists of the Gaussians on every tile, nearest first.
#pragma once

#include "task.h"

namespace lrm {

// List the visible records of an image by depth, ties by index.
void sort_by_depth(Context& context, int index);

// Turn the bins of an image into lists, each tile's in depth order; the order is cut in `parts` that run in parallel.
void build_lists(Context& context, int index, int parts, int threads);

}  // namespace lrm
