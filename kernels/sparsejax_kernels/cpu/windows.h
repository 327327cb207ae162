// The inputs of a convolution, so ordered that it becomes sums over rows of pixels.
#ifndef SPARSEJAX_KERNELS_WINDOWS_H_
#define SPARSEJAX_KERNELS_WINDOWS_H_

#include "pixels.h"

namespace sparsejax_kernels {
namespace {

// The rows of one channel from top on, with zeros where the image ends.
void add_border(const float* x, const Windows& windows, i64 top, i64 count, i64 length,
                float* bordered) {
  constexpr int N = kLanes;
  const i64 end = windows.height * windows.width;
  const i64 before = least(windows.before, length);
  const i64 size = least(windows.width, length - before);
  for (i64 h = top; h < top + count; ++h, bordered += length) {
    if (h < 0 || h >= windows.height) {
      memset(bordered, 0, length * sizeof(float));
      continue;
    }
    for (i64 w = 0; w < before; ++w) bordered[w] = 0;
    const i64 from = h * windows.width;
    float* to = bordered + before;
    i64 w = 0;
    // What is too much is overwritten by what follows.
    for (; w < size && from + w + N <= end; w += N) store<N>(to + w, load<N>(x + from + w));
    for (; w < size; ++w) to[w] = x[from + w];
    for (w = size; w < length - before; ++w) to[w] = 0;
  }
}

// Every stride-th of the floats from here on; only the first count are needed.
template <int N>
INLINE Vector<N> every(const float* from, i64 stride, i64 count) {
  if (stride == 1) return load<N>(from);
  if (stride == 2) return even(load<N>(from), load<N>(from + N));
  Vector<N> result = {};
  for (i64 i = 0; i < count; ++i) result[i] = from[i * stride];
  return result;
}

void pack_windows(const float* x, const Windows& windows, i64 channels, i64 first,
                  i64 size, i64 width, float* bordered, float* panel) {
  constexpr int N = kLanes;
  const i64 columns = windows.columns, end = first + size;
  const i64 top = first / columns, bottom = (end - 1) / columns + 1;
  const i64 count = (bottom - top - 1) * windows.row_stride + windows.tall;
  const i64 length = (columns - 1) * windows.column_stride + windows.wide;
  for (i64 c = 0; c < channels; ++c) {
    add_border(x + c * windows.height * windows.width, windows,
               top * windows.row_stride - windows.above, count, length, bordered);
    for (i64 tap = 0; tap < windows.tall * windows.wide; ++tap) {
      float* to = panel + (tap * channels + c) * width;
      const float* from = bordered + tap / windows.wide * length + tap % windows.wide;
      for (i64 w = size; w < width; ++w) to[w] = 0;
      for (i64 h = top; h < bottom; ++h) {
        const i64 begin = h == top ? first - top * columns : 0;
        const i64 left = least(columns, end - h * columns) - begin;
        const i64 at = h * columns + begin - first;
        const float* row = from + (h - top) * windows.row_stride * length +
                           begin * windows.column_stride;
        for (i64 w = 0; w < left; w += N) {
          const Vector<N> values = every<N>(row + w * windows.column_stride,
                                            windows.column_stride, least(N, left - w));
          // What is too much is overwritten by the next row of the image.
          if (at + w + N <= width)
            store<N>(to + at + w, values);
          else
            store_up_to<N>(to + at + w, values, left - w);
        }
      }
    }
  }
}

}  // namespace
}  // namespace sparsejax_kernels

#endif  // SPARSEJAX_KERNELS_WINDOWS_H_
