// Sums over rows of pixels, and 3x3 filters over planes: channel-first convolutions.
#ifndef SPARSEJAX_KERNELS_PIXELS_H_
#define SPARSEJAX_KERNELS_PIXELS_H_

#include "panels.h"

namespace sparsejax_kernels {
namespace {

constexpr int kMostVectors = 8;

// The first count lanes of a vector, at most N; writes nothing behind them.
template <int N>
INLINE void store_up_to(float* to, Vector<N> value, i64 count) {
  float lanes[N];
  if (count >= N) return store<N>(to, value);
  store<N>(lanes, value);
  i64 done = 0;
#pragma GCC unroll 4
  for (int size = N / 2; size >= 1; size /= 2) {
    if (count & size) {
      memcpy(to + done, lanes + done, size * sizeof(float));
      done += size;
    }
  }
}

// V vectors of pixels of each output channel, from a panel of V * N wide rows; with a
// tail four more pixels, from a panel of their own behind it, which is small enough to
// stay in the nearest cache.
template <class Index, int V, bool kTail>
bool sum_pixels_of(const float* panel, const Rows<Index>& rows, Epilogue epilogue,
                   i64 pixels, float* y, i64 stride, i64 first, i64 last) {
  constexpr int N = kLanes;
  constexpr int W = V * N;
  const float* tails = panel + (rows.limit + 1) * W;
  constexpr int U = V >= 5 ? 1 : V >= 3 ? 2 : 4;
  for (i64 r = first; r < last; ++r) {
    const float* values = rows.values + r * rows.length;
    const Index* indices = rows.indices + r * rows.length;
    if (!in_range(indices, rows.length, rows.limit)) return false;
    Vector<N> sums[U][V] = {};
    Vector<4> tail[U] = {};
    auto add = [&](float value, i64 index, int u) __attribute__((always_inline)) {
      const float* row = panel + index * W;
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sums[u][v] += value * load<N>(row + v * N);
      if (kTail) tail[u] += value * load<4>(tails + index * 4);
    };
    i64 k = 0, at[4];
    for (; k + 4 <= rows.length; k += 4) {
      four_indices(indices + k, at);
#pragma GCC unroll 4
      for (int u = 0; u < 4; ++u) add(values[k + u], at[u], u % U);
    }
    for (; k < rows.length; ++k) add(values[k], indices[k], 0);
    const float bias = epilogue.bias ? epilogue.bias[r] : 0.f;
    float* to = y + r * stride;
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      Vector<N> sum = sums[0][v];
#pragma GCC unroll 4
      for (int u = 1; u < U; ++u) sum += sums[u][v];
      sum += bias;
      if (epilogue.relu) sum = positive<N>(sum);
      if (kTail || v < V - 1)
        store<N>(to + v * N, sum);
      else
        store_up_to<N>(to + v * N, sum, pixels - v * N);
    }
    if (kTail) {
#pragma GCC unroll 4
      for (int u = 1; u < U; ++u) tail[0] += tail[u];
      tail[0] += bias;
      if (epilogue.relu) tail[0] = positive<4>(tail[0]);
      store_up_to<4>(to + W, tail[0], pixels - W);
    }
  }
  return true;
}

// For pixels <= vectors * kLanes, more than with one vector less, or for up to four more.
template <class Index>
bool sum_pixels(const float* panel, int vectors, const Rows<Index>& rows,
                Epilogue epilogue, i64 pixels, float* y, i64 stride, i64 first,
                i64 last) {
#define CASE(V)                                                                   \
  case V:                                                                         \
    return pixels > V * kLanes                                                    \
               ? sum_pixels_of<Index, V, true>(panel, rows, epilogue, pixels, y,  \
                                               stride, first, last)               \
               : sum_pixels_of<Index, V, false>(panel, rows, epilogue, pixels, y, \
                                                stride, first, last)
  switch (vectors) {
    CASE(1);
    CASE(2);
    CASE(3);
    CASE(4);
    CASE(5);
    CASE(6);
    CASE(7);
    CASE(8);
  }
#undef CASE
  return false;
}

// x[channel][pixels], rows stride apart -> panel[channel][width], the rest zeros.
void pack_pixels(const float* x, i64 stride, i64 channels, i64 pixels, i64 width,
                 float* panel) {
  constexpr int N = kLanes;
  for (i64 c = 0; c < channels; ++c) {
    const float* from = x + c * stride;
    float* to = panel + c * width;
    i64 p = 0;
    for (; p + N <= pixels; p += N) store<N>(to + p, load<N>(from + p));
    for (; p < pixels; ++p) to[p] = from[p];
    for (; p < width; ++p) to[p] = 0;
  }
}

INLINE Vector<4> even(Vector<4> a, Vector<4> b) {
  return __builtin_shufflevector(a, b, 0, 2, 4, 6);
}
INLINE Vector<8> even(Vector<8> a, Vector<8> b) {
  return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
}
INLINE Vector<16> even(Vector<16> a, Vector<16> b) {
  return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24,
                                 26, 28, 30);
}

// One channel, filtered: a plane with a border of zeros is a line, in which the nine
// inputs of an output lie at fixed distances.
void filter_plane(const float* x, const Plane& plane, const float* taps, float bias,
                  bool relu, float* bordered, float* y) {
  constexpr int N = kLanes;
  const i64 height = plane.height, width = plane.width;
  const i64 wide = width + 2;
  memset(bordered, 0, wide * sizeof(float));
  for (i64 h = 0; h < height; ++h) {
    float* to = bordered + (h + 1) * wide;
    const float* from = x + h * width;
    const i64 left = (height - h) * width;
    *to++ = 0;
    i64 w = 0;
    // What is too much is overwritten by the next row.
    for (; w < width && w + N <= left; w += N) store<N>(to + w, load<N>(from + w));
    for (; w < width; ++w) to[w] = from[w];
    to[width] = 0;
  }
  memset(bordered + (height + 1) * wide, 0, (wide + kBehind) * sizeof(float));
  auto filter = [&](const float* from) __attribute__((always_inline)) {
    // Three sums in flight, since each waits for the one before.
    Vector<N> sums[3] = {broadcast<N>(bias)};
#pragma GCC unroll 3
    for (int row = 0; row < 3; ++row) {
#pragma GCC unroll 3
      for (int column = 0; column < 3; ++column)
        sums[column] += taps[3 * row + column] * load<N>(from + row * wide + column);
    }
    const Vector<N> sum = sums[0] + (sums[1] + sums[2]);
    return relu ? positive<N>(sum) : sum;
  };
  const i64 stride = plane.stride;
  for (i64 h = 0; h < plane.rows; ++h) {
    const float* from = bordered + (h * stride + plane.skip_rows) * wide +
                        plane.skip_columns;
    float* to = y + h * plane.columns;
    const i64 left = (plane.rows - h) * plane.columns;
    for (i64 w = 0; w < plane.columns; w += N) {
      const Vector<N> sum =
          stride == 1 ? filter(from + w)
                      : even(filter(from + 2 * w), filter(from + 2 * w + N));
      if (w + N <= left)
        store<N>(to + w, sum);
      else
        store_up_to<N>(to + w, sum, plane.columns - w);
    }
  }
}

}  // namespace
}  // namespace sparsejax_kernels

#endif  // SPARSEJAX_KERNELS_PIXELS_H_
