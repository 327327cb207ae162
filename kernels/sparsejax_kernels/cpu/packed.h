// The product with packed weights: how the work is cut up.
#ifndef SPARSEJAX_KERNELS_PACKED_H_
#define SPARSEJAX_KERNELS_PACKED_H_

#include <cstring>

#include "batches.h"
#include "fan_in.h"

namespace sparsejax_kernels {

// The most rows of x for which permuting them where they lie beats sums over panels, as
// measured on Zen 4. A rest costs each of the rows as much as the first.
template <class Index>
i64 most_permuted(const Table& table, const Slices& slices, const Rest<Index>& rest) {
  if (!table.permutes) return 1;
  return rest.depth ? 4 : slices.slots < 8 ? 8 : 16;
}

template <class Index>
bool multiply_packed_by_panels(const Table& table, xla::ffi::ThreadPool& pool,
                               const float* x, i64 batch, const Slices& slices,
                               const Rest<Index>& rest, Epilogue epilogue, float* y) {
  const i64 inputs = rest.limit, outputs = slices.slices * 16;
  const i64 entries = outputs * (slices.blocks * slices.slots + rest.depth);
  i64 threads = std::max<i64>(1, pool.num_threads());
  if (entries * batch < kWorthAThread) threads = 1;
  // Block by block a panel may outgrow the second cache. AVX2 lacks the registers.
  const bool wide = table.permutes && batch >= 64 * threads;
  const int width = wide ? 64 : width_of_panels(batch, threads);
  const i64 rows = slices.blocks * kRowsOfBlock + 1;
  std::atomic<bool> fine{true};
  const auto fill = [&](i64 begin, i64 size, i64 first, i64 last, float* panel) {
    for (i64 c = first; c < last; c += 32) {
      // A row further on for each block before.
      float* to = panel + c / 32 * width;
      const i64 end = std::min(last, c + 32);
      table.pack(x + begin * inputs, inputs, size, width, to, c, end);
      const i64 after = end < inputs ? end + 1 : rows - c / 32;
      std::memset(to + end * width, 0, (after - end) * width * sizeof(float));
    }
  };
  const auto sum = [&](const float* panel, i64 begin, i64 size, i64 first, i64 last) {
    if (!kernels_of<Index>(table).packed_panel(
            panel, width, slices, rest, epilogue, size,
            scratch(1, (last - first) * width), y + begin * outputs, outputs,
            first / 16, last / 16))
      fine = false;
  };
  by_panels(pool, threads, batch, width, rows, inputs, outputs, fill, sum);
  return fine;
}

// y[b, o] for x[batch, inputs] and all of the slices; inputs is rest.limit.
template <class Index>
bool multiply_packed(const Table& table, xla::ffi::ThreadPool& pool, const float* x,
                     i64 batch, const Slices& slices, const Rest<Index>& rest,
                     Epilogue epilogue, float* y) {
  const i64 inputs = rest.limit, columns = slices.slices * 16;
  if (batch > most_permuted(table, slices, rest))
    return multiply_packed_by_panels(table, pool, x, batch, slices, rest, epilogue, y);
  // Behind its inputs a row has a zero, which padding of the rest reads.
  const i64 stride = slices.blocks * 32 + 16;
  float* padded = scratch(0, batch * stride);
  for (i64 b = 0; b < batch; ++b) {
    std::memcpy(padded + b * stride, x + b * inputs, inputs * sizeof(float));
    std::memset(padded + b * stride + inputs, 0, (stride - inputs) * sizeof(float));
  }
  const i64 entries = columns * (slices.blocks * slices.slots + rest.depth);
  i64 threads = std::max<i64>(1, pool.num_threads());
  if (entries * batch < kWorthAThread) threads = 1;
  const i64 parts = threads == 1 ? 1 : 2 * threads;
  const i64 size = std::max<i64>(1, ceil_div(slices.slices, parts));
  // Where rows come in several lots, all but the first find a slice in the first cache.
  const bool one_lot = batch <= 8 && (batch & (batch - 1)) == 0;
  const i64 step = one_lot && rest.depth == 0 ? size : 1;
  const Epilogue before_rest = {epilogue.bias, epilogue.relu && rest.depth == 0};
  std::atomic<bool> fine{true};
  parallel_for(pool, ceil_div(slices.slices, size), threads, [&](i64 part) {
    const i64 last = std::min(slices.slices, (part + 1) * size);
    for (i64 s = part * size; s < last; s += step) {
      const i64 end = std::min(last, s + step);
      for (i64 b = 0, rows; b < batch; b += rows) {
        rows = 8;
        while (rows > batch - b) rows /= 2;
        const float* from = padded + b * stride;
        float* to = y + b * columns;
        if (!table.permute(from, stride, rows, slices, before_rest, to, s, end))
          fine = false;
        if (rest.depth && !kernels_of<Index>(table).add_rest(
                              from, stride, rows, rest, epilogue.relu, to, columns, s,
                              end))
          fine = false;
      }
    }
  });
  return fine;
}

}  // namespace sparsejax_kernels

#endif  // SPARSEJAX_KERNELS_PACKED_H_
