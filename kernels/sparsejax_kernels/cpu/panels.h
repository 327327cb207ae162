// Sums over rows of a panel: the product at batch 3 and above, and the gradient to x.
#ifndef SPARSEJAX_KERNELS_PANELS_H_
#define SPARSEJAX_KERNELS_PANELS_H_

#include "vectors.h"

namespace sparsejax_kernels {
namespace {

inline u16 unsigned_of(u16 index) { return index; }
inline uint32_t unsigned_of(i32 index) { return static_cast<uint32_t>(index); }

// Whether all of the indices are at most limit; a negative one is a large unsigned one.
template <class Index>
INLINE bool in_range(const Index* indices, i64 count, i64 limit) {
  using Unsigned = decltype(unsigned_of(Index{}));
  Unsigned largest = 0;
  for (i64 i = 0; i < count; ++i) {
    const Unsigned index = static_cast<Unsigned>(indices[i]);
    largest = index > largest ? index : largest;
  }
  return count == 0 || largest <= static_cast<uint64_t>(limit);
}

// Four indices; those of 16 bits by one load, since loads are what a processor is short of.
INLINE void four_indices(const u16* from, i64* to) {
  uint64_t all;
  memcpy(&all, from, sizeof(all));
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) to[i] = all >> (16 * i) & 0xffff;
}
INLINE void four_indices(const i32* from, i64* to) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) to[i] = from[i];
}

// One more than the place of the last of at most kLanes indices that is not the given
// one, 0 if all are.
template <class Index>
struct LastUnlike {
  static constexpr int kLanes = 4;
  static INLINE int of(const Index* indices, i64 count, Index given) {
    int result = 0;
    for (int i = 0; i < count; ++i) result = indices[i] != given ? i + 1 : result;
    return result;
  }
};
#if defined(__AVX512BW__)
template <>
struct LastUnlike<u16> {
  static constexpr int kLanes = 32;
  static INLINE int of(const u16* indices, i64 count, u16 given) {
    const __mmask32 which = count >= 32 ? ~0u : (1u << count) - 1;
    const __mmask32 unlike = _mm512_mask_cmpneq_epi16_mask(
        which, _mm512_maskz_loadu_epi16(which, indices), _mm512_set1_epi16(given));
    return unlike ? 32 - __builtin_clz(unlike) : 0;
  }
};
template <>
struct LastUnlike<i32> {
  static constexpr int kLanes = 16;
  static INLINE int of(const i32* indices, i64 count, i32 given) {
    const __mmask16 which = count >= 16 ? 0xffffu : (1u << count) - 1;
    const uint32_t unlike = _mm512_mask_cmpneq_epi32_mask(
        which, _mm512_maskz_loadu_epi32(which, indices), _mm512_set1_epi32(given));
    return unlike ? 32 - __builtin_clz(unlike) : 0;
  }
};
#endif

// The length of a row without the padding that it ends with. Masks without a structure
// fill the rows of a weight unevenly: at 90 % of 512 inputs the mean one is two thirds as
// long as the longest.
template <class Index>
INLINE i64 without_padding(const Index* indices, i64 length, i64 limit) {
  const Index padding = static_cast<Index>(limit);
  // Indices too narrow for the limit have no padding, and most rows that are as long as
  // all others have none either.
  if (static_cast<i64>(padding) != limit) return length;
  if (length > 0 && indices[length - 1] != padding) return length;
  constexpr int N = LastUnlike<Index>::kLanes;
  for (; length >= N; length -= N) {
    const int found = LastUnlike<Index>::of(indices + length - N, N, padding);
    if (found) return length - N + found;
  }
  return LastUnlike<Index>::of(indices, length, padding);
}

template <int N>
void pack_columns(const float* x, i64 columns, i64 batch, int width, float* panel,
                  i64 first, i64 last) {
  for (int b = 0; b < width; b += N) {
    const i64 valid = batch - b;
    i64 c = first;
    for (; c + N <= last; c += N) {
      Vector<N> rows[N];
#pragma GCC unroll 16
      for (int i = 0; i < N; ++i)
        rows[i] = i < valid ? load<N>(x + (b + i) * columns + c) : Vector<N>{};
      transpose<N>(rows);
#pragma GCC unroll 16
      for (int i = 0; i < N; ++i) store<N>(panel + (c + i) * width + b, rows[i]);
    }
    for (; c < last; ++c)
      for (int i = 0; i < N; ++i)
        panel[c * width + b + i] = i < valid ? x[(b + i) * columns + c] : 0.f;
  }
}

void pack(const float* x, i64 columns, i64 batch, int width, float* panel, i64 first,
          i64 last) {
  if (kLanes > 8 && width % kLanes) {
    pack_columns<8>(x, columns, batch, width, panel, first, last);
  } else {
    pack_columns<kLanes>(x, columns, batch, width, panel, first, last);
  }
}

// A tile [N outputs][width] of finished sums -> y[b, o], batch-major.
template <int N, int W>
INLINE void unpack(const float* tile, i64 count, i64 batch, float* y, i64 stride) {
  if (count < N) {
    for (i64 o = 0; o < count; ++o)
      for (i64 b = 0; b < batch; ++b) y[b * stride + o] = tile[o * W + b];
    return;
  }
  for (int b = 0; b < W && b < batch; b += N) {
    Vector<N> rows[N];
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) rows[i] = load<N>(tile + i * W + b);
    transpose<N>(rows);
    const i64 valid = batch - b;
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i)
      if (i < valid) store<N>(y + (b + i) * stride, rows[i]);
  }
}

// A transposed index is used by several panels: one pass checks it and looks the values
// up, and the panels read both in order.
template <class Index>
bool arrange(const float* values, const i32* positions, const Index* indices,
             i64 entries, i64 limit, float* to, i64 first, i64 last) {
  for (i64 begin = first; begin < last; begin += 1024) {
    const i64 end = least(begin + 1024, last);
    if (!in_range(positions + begin, end - begin, entries - 1) ||
        !in_range(indices + begin, end - begin, limit))
      return false;
    for (i64 e = begin; e < end; ++e) to[e] = values[positions[e]];
  }
  return true;
}

template <class Index, int N, int W, bool Transposed>
bool sum_rows(const float* panel, const Rows<Index>& rows, Epilogue epilogue,
              i64 batch, float* y, i64 stride, i64 first, i64 last) {
  constexpr int V = W / N;
  // Enough sums in flight to hide the latency of a multiply-add.
  constexpr int U = V >= 8 ? 1 : V >= 4 ? 2 : 4;
  constexpr int kTile = 16;
  alignas(64) float tile[kTile * W];
  i64 checked = first;
  for (i64 group = first; group < last; group += kTile) {
    const i64 count = least(kTile, last - group), begin = group * rows.length;
    if (!Transposed && group == checked) {
      // Of short rows many at once, since the end of a check takes time, too.
      checked = least(last, group + kTile * (1 + 256 / (rows.length + 1)));
      if (!in_range(rows.indices + begin, (checked - group) * rows.length, rows.limit))
        return false;
    }
    for (i64 r = 0; r < count; ++r) {
      const i64 from = Transposed ? rows.starts[group + r] : begin + r * rows.length;
      const i64 to = Transposed
                         ? rows.starts[group + r + 1]
                         : from + without_padding(rows.indices + from, rows.length,
                                                  rows.limit);
      Vector<N> sums[U][V] = {};
      i64 e = from, at[4];
      auto add = [&](i64 entry, i64 index, Vector<N>* sum)
          __attribute__((always_inline)) {
        const float* row = panel + index * W;
        const float value = rows.values[entry];
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) sum[v] += value * load<N>(row + v * N);
      };
      for (; e + U <= to; e += U) {
#pragma GCC unroll 8
        for (int u = 0; u < U; ++u) {
          if (U == 4 && u == 0) four_indices(rows.indices + e, at);
          add(e + u, U == 4 ? at[u] : rows.indices[e + u], sums[u]);
        }
      }
      for (; e < to; ++e) add(e, rows.indices[e], sums[0]);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) {
        Vector<N> sum = sums[0][v];
#pragma GCC unroll 8
        for (int u = 1; u < U; ++u) sum += sums[u][v];
        if (epilogue.bias) sum += epilogue.bias[group + r];
        if (epilogue.relu) sum = positive<N>(sum);
        store<N>(tile + r * W + v * N, sum);
      }
    }
    for (i64 r = 0; r < count; r += N)
      unpack<N, W>(tile + r * W, least(N, count - r), batch, y + group + r, stride);
  }
  return true;
}

template <class Index, int N, int W>
bool sum_either(const float* panel, const Rows<Index>& rows, Epilogue epilogue,
                i64 batch, float* y, i64 stride, i64 first, i64 last) {
  return rows.starts ? sum_rows<Index, N, W, true>(panel, rows, epilogue, batch, y,
                                                   stride, first, last)
                     : sum_rows<Index, N, W, false>(panel, rows, epilogue, batch, y,
                                                    stride, first, last);
}

template <class Index>
bool sum_panel(const float* panel, int width, const Rows<Index>& rows,
               Epilogue epilogue, i64 batch, float* y, i64 stride, i64 first,
               i64 last) {
  switch (width) {
    case 8:
      return sum_either<Index, (kLanes < 8 ? kLanes : 8), 8>(
          panel, rows, epilogue, batch, y, stride, first, last);
    case 16:
      return sum_either<Index, kLanes, 16>(panel, rows, epilogue, batch, y, stride,
                                           first, last);
    case 32:
      return sum_either<Index, kLanes, 32>(panel, rows, epilogue, batch, y, stride,
                                           first, last);
    case 64:
      return sum_either<Index, kLanes, kWidest>(
          panel, rows, epilogue, batch, y, stride, first, last);
  }
  return false;
}

}  // namespace
}  // namespace sparsejax_kernels

#endif  // SPARSEJAX_KERNELS_PANELS_H_
