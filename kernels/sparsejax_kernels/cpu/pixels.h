// Sums over rows of pixels: channel-first 1x1 convolutions.
#ifndef SPARSEJAX_KERNELS_PIXELS_H_
#define SPARSEJAX_KERNELS_PIXELS_H_

#include "panels.h"

namespace sparsejax_kernels {
namespace {

constexpr int kMostVectors = 8;

// The first count lanes of a vector, at most N; writes nothing behind them.
template <int N>
INLINE void store_up_to(float* to, Vector<N> value, i64 count) {
  if (count >= N) return store<N>(to, value);
#if defined(__AVX512F__)
  if constexpr (N == 16) {
    const __mmask16 which = (1u << count) - 1;
    return _mm512_mask_storeu_ps(to, which, (__m512)value);
  }
#endif
  float lanes[N];
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
  if (!in_range(rows.indices + first * rows.length, (last - first) * rows.length,
                rows.limit))
    return false;
  for (i64 r = first; r < last; ++r) {
    const float* values = rows.values + r * rows.length;
    const Index* indices = rows.indices + r * rows.length;
    Vector<N> sums[U][V] = {};
    Vector<4> tail[U] = {};
    auto add = [&](float value, i64 index, int u) __attribute__((always_inline)) {
      const float* row = panel + index * W;
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sums[u][v] += value * load<N>(row + v * N);
      if (kTail) tail[u] += value * load<4>(tails + index * 4);
    };
    const i64 length = without_padding(indices, rows.length, rows.limit);
    i64 k = 0, at[4];
    for (; k + 4 <= length; k += 4) {
      four_indices(indices + k, at);
#pragma GCC unroll 4
      for (int u = 0; u < 4; ++u) add(values[k + u], at[u], u % U);
    }
    for (; k < length; ++k) add(values[k], indices[k], 0);
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

}  // namespace
}  // namespace sparsejax_kernels

#endif  // SPARSEJAX_KERNELS_PIXELS_H_
