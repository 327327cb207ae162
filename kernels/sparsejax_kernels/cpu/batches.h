// How a batch is cut into panels, and who makes the outputs of which.
#ifndef SPARSEJAX_KERNELS_BATCHES_H_
#define SPARSEJAX_KERNELS_BATCHES_H_

#include <algorithm>

#include "parallel.h"

namespace sparsejax_kernels {

// Wider panels read the weights less often, but leave the second cache.
inline int width_of_panels(i64 batch, i64 threads) {
  return batch <= 8 ? 8 : batch >= 32 * threads ? 32 : 16;
}

// Cuts a batch into panels of rows_of_panel rows, and calls for each of them
// fill(begin, size, first, last, panel), which packs the inputs first to last of the rows
// begin to begin + size of x, and then sum(panel, begin, size, first, last), which makes
// the outputs first to last. Inputs are cut at multiples of 32, outputs of 16.
template <class Fill, class Sum>
void by_panels(xla::ffi::ThreadPool& pool, i64 threads, i64 batch, int width,
               i64 rows_of_panel, i64 inputs, i64 outputs, Fill fill, Sum sum) {
  const i64 panels = ceil_div(batch, width), panel_size = rows_of_panel * width;
  if (panels >= threads) {
    // A panel belongs to one task from end to end: nothing moves between caches.
    parallel_for(pool, panels, threads, [&](i64 p) {
      float* panel = scratch(0, panel_size);
      const i64 begin = p * width, size = std::min<i64>(width, batch - begin);
      fill(begin, size, 0, inputs, panel);
      sum(panel, begin, size, 0, outputs);
    });
    return;
  }
  float* packed = scratch(0, panels * panel_size);
  const i64 cut = inputs * width < 16384 ? 1 : threads;
  const i64 columns = ceil_div(ceil_div(inputs, cut), 32) * 32;
  const i64 cuts = ceil_div(inputs, columns);
  parallel_for(pool, panels * cuts, threads, [&](i64 task) {
    const i64 p = task / cuts, begin = p * width, first = task % cuts * columns;
    fill(begin, std::min<i64>(width, batch - begin), first,
         std::min(inputs, first + columns), packed + p * panel_size);
  });
  const i64 parts = threads == 1 ? 1 : ceil_div(4 * threads, panels);
  const i64 size = ceil_div(ceil_div(outputs, parts), 16) * 16;
  const i64 pieces = ceil_div(outputs, size);
  parallel_for(pool, panels * pieces, threads, [&](i64 task) {
    const i64 p = task / pieces, begin = p * width, first = task % pieces * size;
    sum(packed + p * panel_size, begin, std::min<i64>(width, batch - begin), first,
        std::min(outputs, first + size));
  });
}

}  // namespace sparsejax_kernels

#endif  // SPARSEJAX_KERNELS_BATCHES_H_
