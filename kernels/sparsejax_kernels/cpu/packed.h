// The product with packed weights: how the work is cut up.
#ifndef SPARSEJAX_KERNELS_PACKED_H_
#define SPARSEJAX_KERNELS_PACKED_H_

#include <cstring>

#include "fan_in.h"

namespace sparsejax_kernels {

// y[b, o] for x[batch, inputs] and all of the slices; inputs is rest.limit.
template <class Index>
bool multiply_packed(const Table& table, xla::ffi::ThreadPool& pool, const float* x,
                     i64 batch, const Slices& slices, const Rest<Index>& rest,
                     Epilogue epilogue, float* y) {
  const i64 inputs = rest.limit, columns = slices.slices * 16;
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
