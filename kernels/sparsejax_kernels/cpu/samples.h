// The gradient of the values: products of two panels, sampled at the kept weights.
#ifndef SPARSEJAX_KERNELS_SAMPLES_H_
#define SPARSEJAX_KERNELS_SAMPLES_H_

#include "panels.h"

namespace sparsejax_kernels {
namespace {

template <class Index, int W>
bool sample_rows(const float* cotangent, const float* panel, const Index* indices,
                 i64 length, i64 limit, bool add, float* gradient, i64 first,
                 i64 last) {
  constexpr int N = kLanes;
  constexpr int V = W / N;
  for (i64 o = first; o < last; ++o) {
    const Index* reads = indices + o * length;
    float* to = gradient + o * length;
    if (!in_range(reads, length, limit)) return false;
    Vector<N> factors[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) factors[v] = load<N>(cotangent + o * W + v * N);
    auto product = [&](Index read) __attribute__((always_inline)) {
      const float* row = panel + static_cast<i64>(read) * W;
      Vector<N> sum = factors[0] * load<N>(row);
#pragma GCC unroll 8
      for (int v = 1; v < V; ++v) sum += factors[v] * load<N>(row + v * N);
      return sum;
    };
    i64 k = 0;
    for (; k + N <= length; k += N) {
      Vector<N> sums[N];
#pragma GCC unroll 16
      for (int i = 0; i < N; ++i) sums[i] = product(reads[k + i]);
      const Vector<N> found = totals<N>(sums);
      store<N>(to + k, add ? found + load<N>(to + k) : found);
    }
    // All rows are as long, so that these branches cost nothing.
    if (const i64 left = length - k) {
      Vector<N> sums[N];
#pragma GCC unroll 16
      for (int i = 0; i < N; ++i)
        sums[i] = i < left ? product(reads[k + i]) : Vector<N>{};
      const Vector<N> found = totals<N>(sums);
      store_first<N>(to + k, add ? found + load_first<N>(to + k, left) : found, left);
    }
  }
  return true;
}

template <class Index>
bool sample(const float* cotangent, const float* panel, int width,
            const Index* indices, i64 length, i64 limit, bool add, float* gradient,
            i64 first, i64 last) {
  switch (width) {
    case 16:
      return sample_rows<Index, 16>(cotangent, panel, indices, length, limit, add,
                                    gradient, first, last);
    case 32:
      return sample_rows<Index, 32>(cotangent, panel, indices, length, limit, add,
                                    gradient, first, last);
    case 64:
      return sample_rows<Index, kWidest>(
          cotangent, panel, indices, length, limit, add, gradient, first, last);
  }
  return false;
}

}  // namespace
}  // namespace sparsejax_kernels

#endif  // SPARSEJAX_KERNELS_SAMPLES_H_
