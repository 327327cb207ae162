// Dense products of small matrices that stay in registers: the work on a block.
#ifndef SPARSEJAX_KERNELS_TILES_H_
#define SPARSEJAX_KERNELS_TILES_H_

#include "vectors.h"

namespace sparsejax_kernels {
namespace {

// Rows of a tile: with two vectors each and the operands they fill the registers.
constexpr int kTallest = kLanes == 16 ? 14 : kLanes == 8 ? 6 : 4;

// Two vectors of each row, as long as there are so many columns, then fewer.
template <int N, int V, int T>
INLINE void sum_chunk(const Products& products, i64 column) {
  // Enough sums in flight to hide the latency of a multiply-add.
  constexpr int U = T * V >= 8 ? 1 : T * V >= 4 ? 2 : 4;
  Vector<N> sums[U][T][V] = {};
  for (i64 p = 0; p < products.count; ++p) {
    const float* left = products.left + products.terms[p].left;
    const float* right = products.right + products.terms[p].right + column;
    auto add = [&](Vector<N>(*sum)[V]) __attribute__((always_inline)) {
      Vector<N> row[V];
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) row[v] = load<N>(right + v * N);
#pragma GCC unroll 16
      for (int t = 0; t < T; ++t) {
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) sum[t][v] += left[t] * row[v];
      }
      left += products.left_stride;
      right += products.right_stride;
    };
    i64 k = 0;
    for (; k + U <= products.depth; k += U) {
#pragma GCC unroll 4
      for (int u = 0; u < U; ++u) add(sums[u]);
    }
    for (; k < products.depth; ++k) add(sums[0]);
  }
  const i64 valid = least(V * N, products.columns - column);
  float bias[V * N] = {}, rest[V * N];
  if (products.epilogue.bias && !products.bias_of_rows)
    memcpy(bias, products.epilogue.bias + column, valid * sizeof(float));
#pragma GCC unroll 16
  for (int t = 0; t < T; ++t) {
    if (products.epilogue.bias && products.bias_of_rows)
      for (float& each : bias) each = products.epilogue.bias[t];
    float* to = products.y + t * products.y_stride + column;
    float* result = valid == V * N ? to : rest;
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
      Vector<N> sum = sums[0][t][v];
#pragma GCC unroll 4
      for (int u = 1; u < U; ++u) sum += sums[u][t][v];
      sum += load<N>(bias + v * N);
      if (products.epilogue.relu) sum = positive<N>(sum);
      store<N>(result + v * N, sum);
    }
    if (result == rest) memcpy(to, rest, valid * sizeof(float));
  }
}

template <int T>
void sum_columns(const Products& products) {
  constexpr int N = kLanes;
  for (i64 column = 0; column < products.columns;) {
    const i64 rest = products.right_stride - column;
    if (rest >= 2 * N) {
      sum_chunk<N, 2, T>(products, column);
      column += 2 * N;
    } else if (rest >= N) {
      sum_chunk<N, 1, T>(products, column);
      column += N;
    } else if (N > 8 && rest >= 8) {
      sum_chunk<8, 1, T>(products, column);
      column += 8;
    } else {
      sum_chunk<4, 1, T>(products, column);
      column += 4;
    }
  }
}

template <int T>
void sum_tile_of(const Products& products, i64 rows) {
  if constexpr (T > 1) {
    if (rows < T) return sum_tile_of<T - 1>(products, rows);
  }
  sum_columns<T>(products);
}

void sum_tile(const Products& products, i64 rows) {
  sum_tile_of<kTallest>(products, rows);
}

// x[rows, columns] -> tile[column][rows], for a few rows. Writes whole vectors, so that
// the tile has to have room for another one.
void pack_tile(const float* x, i64 rows, i64 columns, i64 first, i64 last, float* tile) {
  constexpr int N = kLanes;
  static_assert(kTallest <= N, "one transposition has to hold all rows");
  i64 c = first;
  // The next column overwrites what is too much; the last ones of a part go singly,
  // since what follows them may be somebody else's.
  for (; rows > 1 && c + 2 * N <= last; c += N) {
    Vector<N> lines[N];
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i)
      lines[i] = i < rows ? load<N>(x + i * columns + c) : Vector<N>{};
    transpose<N>(lines);
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) store<N>(tile + (c + i) * rows, lines[i]);
  }
  for (; c < last; ++c)
    for (i64 i = 0; i < rows; ++i) tile[c * rows + i] = x[i * columns + c];
}

// from[rows, columns] -> to[column][stride], zeros from rows up to the stride.
void transpose_block(const float* from, i64 rows, i64 columns, i64 stride, float* to) {
  constexpr int N = kLanes;
  for (i64 r = 0; r < stride; r += N) {
    i64 c = 0;
    for (; r + N <= rows && c + N <= columns; c += N) {
      Vector<N> lines[N];
#pragma GCC unroll 16
      for (int i = 0; i < N; ++i) lines[i] = load<N>(from + (r + i) * columns + c);
      transpose<N>(lines);
#pragma GCC unroll 16
      for (int i = 0; i < N; ++i) store<N>(to + (c + i) * stride + r, lines[i]);
    }
    for (; c < columns; ++c)
      for (i64 i = r; i < least(r + N, stride); ++i)
        to[c * stride + i] = i < rows ? from[i * columns + c] : 0.f;
  }
}

}  // namespace
}  // namespace sparsejax_kernels

#endif  // SPARSEJAX_KERNELS_TILES_H_
