// Lists of the Gaussians on every tile.
#pragma once

#include "task.h"

namespace lrm {

// Turn the bins of an image into lists, each tile's by record; the chunks are cut in `parts` that run in parallel.
void build_lists(Context& context, int index, int parts, int threads);

// Sort entries by depth, ties by record.
void sort_by_depth(ListEntry* list, uint32_t count);

}  // namespace lrm
