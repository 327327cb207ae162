// 3x3 filters over the planes of channels: depthwise convolutions.
#ifndef SPARSEJAX_KERNELS_FILTERS_H_
#define SPARSEJAX_KERNELS_FILTERS_H_

#include "pixels.h"

namespace sparsejax_kernels {
namespace {

INLINE Vector<4> odd(Vector<4> a, Vector<4> b) {
  return __builtin_shufflevector(a, b, 1, 3, 5, 7);
}
INLINE Vector<8> odd(Vector<8> a, Vector<8> b) {
  return __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
}
INLINE Vector<16> odd(Vector<16> a, Vector<16> b) {
  return __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25,
                                 27, 29, 31);
}

// A filter in registers: as memory it would be read again after every store.
struct Filter {
  Vector<kLanes> taps[9];
  Vector<kLanes> bias;

  INLINE Filter(const float* from, float constant) : bias(broadcast<kLanes>(constant)) {
#pragma GCC unroll 9
    for (int tap = 0; tap < 9; ++tap) taps[tap] = broadcast<kLanes>(from[tap]);
  }
};

// What a vector of outputs reads of an input row, by the columns of the filter: from
// column `first` on, which may lie before the row, the lanes that are inside of it.
template <int S>
struct Reader {
  static constexpr int kLoads = S == 1 ? 3 : 4;
  i64 first;
  Inside<kLanes> lanes[kLoads];

  INLINE Reader(i64 first, i64 width) : first(first) {
#pragma GCC unroll 4
    for (int i = 0; i < kLoads; ++i)
      lanes[i] = Inside<kLanes>(first + shift(i), width);
  }

  // Where a load begins: at a column of the filter, or two of two vectors each, whose
  // even lanes belong to the outer columns and the odd ones of the first to the middle.
  static constexpr int shift(int i) {
    return S == 1 ? i : i % 2 * kLanes + i / 2 * 2;
  }

  INLINE void read(const float* row, Vector<kLanes>* inputs) const {
    Vector<kLanes> loaded[kLoads];
#pragma GCC unroll 4
    for (int i = 0; i < kLoads; ++i) loaded[i] = lanes[i].load(row + first + shift(i));
    if constexpr (S == 1) {
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i) inputs[i] = loaded[i];
    } else {
      inputs[0] = even(loaded[0], loaded[1]);
      inputs[1] = odd(loaded[0], loaded[1]);
      inputs[2] = even(loaded[2], loaded[3]);
    }
  }
};

// A vector of pixels of each of R output rows below one another, from h on, which read
// the same input rows: loads across cache lines are what a filter waits for.
template <int R, int S>
INLINE void filter_rows(const float* x, const Plane& plane, i64 h,
                        const Reader<S>& reader, const Filter& filter, bool relu,
                        Vector<kLanes>* results) {
  constexpr int N = kLanes;
  // Three sums in flight at least, since each waits for the one before.
  constexpr int U = R < 3 ? 3 : 1;
  Vector<N> sums[R][U] = {};
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) sums[r][0] = filter.bias;
  const i64 top = h * S + plane.skip_rows - 1;
#pragma GCC unroll 8
  for (int row = 0; row < (R - 1) * S + 3; ++row) {
    if (top + row < 0 || top + row >= plane.height) continue;
    Vector<N> inputs[3];
    reader.read(x + (top + row) * plane.width, inputs);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const int tap = 3 * (row - r * S);
      if (tap < 0 || tap > 6) continue;
#pragma GCC unroll 3
      for (int column = 0; column < 3; ++column)
        sums[r][column % U] += filter.taps[tap + column] * inputs[column];
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    Vector<N> sum = sums[r][0];
#pragma GCC unroll 3
    for (int u = 1; u < U; ++u) sum += sums[r][u];
    results[r] = relu ? positive<N>(sum) : sum;
  }
}

template <int R, int S>
INLINE void filter_from(const float* x, const Plane& plane, i64 h, const Filter& filter,
                        bool relu, float* y) {
  constexpr int N = kLanes;
  for (i64 w = 0; w < plane.columns; w += N) {
    const Reader<S> reader(w * S + plane.skip_columns - 1, plane.width);
    Vector<N> results[R];
    filter_rows<R, S>(x, plane, h, reader, filter, relu, results);
    float* to = y + h * plane.columns + w;
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
      store_up_to<N>(to + r * plane.columns, results[r], plane.columns - w);
  }
}

// As many output rows at a time as the registers hold sums for, then the rest.
template <int R, int S>
INLINE void filter_all(const float* x, const Plane& plane, i64 h, const Filter& filter,
                       bool relu, float* y) {
  for (; h + R <= plane.rows; h += R) filter_from<R, S>(x, plane, h, filter, relu, y);
  if constexpr (R > 1) filter_all<R - 1, S>(x, plane, h, filter, relu, y);
}

// One channel, filtered.
void filter_plane(const float* x, const Plane& plane, const float* taps, float bias,
                  bool relu, float* y) {
  const Filter filter(taps, bias);
  if (plane.stride == 1)
    filter_all<4, 1>(x, plane, 0, filter, relu, y);
  else
    filter_all<2, 2>(x, plane, 0, filter, relu, y);
}

}  // namespace
}  // namespace sparsejax_kernels

#endif  // SPARSEJAX_KERNELS_FILTERS_H_
