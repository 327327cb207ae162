// The product at batch 1 and 2: inputs are gathered where they lie, nothing is packed.
#ifndef SPARSEJAX_KERNELS_GATHERS_H_
#define SPARSEJAX_KERNELS_GATHERS_H_

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "panels.h"

namespace sparsejax_kernels {
namespace {

INLINE float finish(float sum, Epilogue epilogue, i64 output) {
  if (epilogue.bias) sum += epilogue.bias[output];
  return epilogue.relu && !(sum > 0) ? 0.f : sum;
}

// Weights that were not used lately come from far, and a row is too short for the
// processor to see the pattern in time. Past the end of an array this does nothing.
template <class T>
INLINE void prefetch(const T* from, i64 bytes) {
  __builtin_prefetch(reinterpret_cast<const char*>(from) + bytes);
}

#if defined(__AVX512F__)

INLINE __m512i load_indices(const u16* from, __mmask16 which) {
  return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(which, from));
}
INLINE __m512i load_indices(const i32* from, __mmask16 which) {
  return _mm512_maskz_loadu_epi32(which, from);
}

template <class Index, int B>
bool gather_rows(const float* x, i64 stride, const Rows<Index>& rows,
                 Epilogue epilogue, float* y, i64 outputs, i64 first, i64 last) {
  const __m512i bound = _mm512_set1_epi32(static_cast<i32>(rows.limit));
  __mmask16 wrong = 0;
  for (i64 o = first; o < last; ++o) {
    const float* values = rows.values + o * rows.length;
    const Index* indices = rows.indices + o * rows.length;
    __m512 sums[B][2];
#pragma GCC unroll 4
    for (int b = 0; b < B; ++b) sums[b][0] = sums[b][1] = _mm512_setzero_ps();
    auto step = [&](i64 k, int half, __mmask16 which) __attribute__((always_inline)) {
      const __m512i index = load_indices(indices + k, which);
      const __m512 value = _mm512_maskz_loadu_ps(which, values + k);
      const __mmask16 inside = _mm512_mask_cmplt_epu32_mask(which, index, bound);
      wrong |= _mm512_mask_cmpgt_epu32_mask(which, index, bound);
#pragma GCC unroll 4
      for (int b = 0; b < B; ++b) {
        const __m512 input = _mm512_mask_i32gather_ps(_mm512_setzero_ps(), inside,
                                                      index, x + b * stride, 4);
        sums[b][half] = _mm512_fmadd_ps(value, input, sums[b][half]);
      }
    };
    i64 k = 0;
    for (; k + 32 <= rows.length; k += 32) {
      _mm_prefetch(reinterpret_cast<const char*>(values + k) + 1024, _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(values + k) + 1088, _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(indices + k) + 1024, _MM_HINT_T0);
      step(k, 0, 0xffff);
      step(k + 16, 1, 0xffff);
    }
    for (; k < rows.length; k += 16) {
      const i64 left = rows.length - k;
      step(k, 0, left >= 16 ? 0xffff : (1u << left) - 1);
    }
#pragma GCC unroll 4
    for (int b = 0; b < B; ++b) {
      const float sum = _mm512_reduce_add_ps(_mm512_add_ps(sums[b][0], sums[b][1]));
      y[b * outputs + o] = finish(sum, epilogue, o);
    }
  }
  return !wrong;
}

#endif

// Four loads into the lanes of one vector: on AMD's processors, and wherever there is no
// fast gather, twice as fast as the gather instruction.
template <class Index>
bool collect(const float* x, i64 stride, i64 batch, const Rows<Index>& rows,
             Epilogue epilogue, float* y, i64 outputs, i64 first, i64 last) {
  for (i64 o = first; o < last; ++o) {
    const float* values = rows.values + o * rows.length;
    const Index* indices = rows.indices + o * rows.length;
    // Several rows at once, because the ends of short ones would take the time.
    if ((o - first) % 8 == 0 &&
        !in_range(indices, least(8, last - o) * rows.length, rows.limit))
      return false;
    const i64 length = without_padding(indices, rows.length, rows.limit);
    for (i64 b = 0; b < batch; ++b) {
      const float* from = x + b * stride;
      Vector<4> sums[2] = {};
      auto step = [&](i64 k, int part) __attribute__((always_inline)) {
        i64 at[4];
        four_indices(indices + k, at);
        const Vector<4> input = {from[at[0]], from[at[1]], from[at[2]], from[at[3]]};
        sums[part] += load<4>(values + k) * input;
      };
      i64 k = 0;
      for (; k + 8 <= length; k += 8) {
        prefetch(values + k, 4096);
        prefetch(indices + k, 8192);
        step(k, 0);
        step(k + 4, 1);
      }
      if (k + 4 <= length) {
        step(k, 0);
        k += 4;
      }
      float sum = total<4>(sums[0] + sums[1]);
      for (; k < length; ++k) sum += values[k] * from[indices[k]];
      y[b * outputs + o] = finish(sum, epilogue, o);
    }
  }
  return true;
}

INLINE Vector<4> side_by_side(const Vector<4>* parts, Count<4>) { return parts[0]; }
INLINE Vector<8> side_by_side(const Vector<4>* parts, Count<8>) {
  return __builtin_shufflevector(parts[0], parts[1], 0, 1, 2, 3, 4, 5, 6, 7);
}
INLINE Vector<16> side_by_side(const Vector<4>* parts, Count<16>) {
  return __builtin_shufflevector(side_by_side(parts, Count<8>{}),
                                 side_by_side(parts + 2, Count<8>{}), 0, 1, 2, 3, 4, 5,
                                 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}

// The rest of a packed weight: the outputs of a slice side by side, a weight of each at a
// time, so that neither sums across a vector nor the ends of short rows take time.
template <class Index>
bool add_rest(const float* x, i64 stride, i64 batch, const Rest<Index>& rest, bool relu,
              float* y, i64 columns, i64 first, i64 last) {
  constexpr int N = kLanes, V = 16 / N;
  for (i64 s = first; s < last; ++s) {
    const float* values = rest.values + s * rest.stride;
    const Index* inputs = rest.inputs + s * rest.depth * 16;
    const i64 count = without_padding(inputs, rest.depth * 16, rest.limit);
    if (!in_range(inputs, count, rest.limit)) return false;
    for (i64 b = 0; b < batch; ++b) {
      const float* from = x + b * stride;
      float* to = y + b * columns + s * 16;
      Vector<N> sums[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sums[v] = load<N>(to + v * N);
      for (i64 e = 0; e < count; e += 16) {
        Vector<4> parts[4];
#pragma GCC unroll 4
        for (int p = 0; p < 4; ++p) {
          i64 at[4];
          four_indices(inputs + e + 4 * p, at);
          parts[p] = Vector<4>{from[at[0]], from[at[1]], from[at[2]], from[at[3]]};
        }
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v)
          sums[v] += load<N>(values + e + v * N) *
                     side_by_side(parts + v * N / 4, Count<N>{});
      }
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v)
        store<N>(to + v * N, relu ? positive<N>(sums[v]) : sums[v]);
    }
  }
  return true;
}

#if defined(__AVX512F__)
template <class Index>
bool gather(const float* x, i64 stride, i64 batch, const Rows<Index>& rows,
            Epilogue epilogue, float* y, i64 outputs, i64 first, i64 last) {
  if (batch == 1)
    return gather_rows<Index, 1>(x, stride, rows, epilogue, y, outputs, first, last);
  return gather_rows<Index, 2>(x, stride, rows, epilogue, y, outputs, first, last);
}
#else
template <class Index>
constexpr auto gather = collect<Index>;
#endif

}  // namespace
}  // namespace sparsejax_kernels

#endif  // SPARSEJAX_KERNELS_GATHERS_H_
