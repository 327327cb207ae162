// Vectors of N floats in the compiler's own notation, and their transposition.
//
// Included by one translation unit per instruction set. Everything is in an unnamed
// namespace and nothing of the standard library is called: an inline function with
// external linkage, compiled here for AVX-512, might be the copy the linker keeps.
#ifndef SPARSEJAX_KERNELS_VECTORS_H_
#define SPARSEJAX_KERNELS_VECTORS_H_

#include <cstdint>
#include <cstring>
#include <utility>
#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#include "table.h"

#define INLINE inline __attribute__((always_inline))

namespace sparsejax_kernels {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

constexpr int kWidest = kLanes >= 8 ? 64 : 32;

constexpr i64 least(i64 a, i64 b) { return a < b ? a : b; }

// A number for the compiler, as an argument.
template <int N>
struct Count {
  static constexpr int value = N;
};

template <int N>
struct VectorOf {
  typedef float type __attribute__((vector_size(4 * N)));
};
template <int N>
using Vector = typename VectorOf<N>::type;

template <int N>
INLINE Vector<N> load(const float* from) {
  Vector<N> result;
  memcpy(&result, from, sizeof(result));
  return result;
}

template <int N>
INLINE void store(float* to, Vector<N> value) {
  memcpy(to, &value, sizeof(value));
}

template <int N>
INLINE Vector<N> broadcast(float value) {
  return value - Vector<N>{};
}

template <int N>
INLINE Vector<N> positive(Vector<N> value) {
  return value > 0 ? value : Vector<N>{};
}

INLINE Vector<4> low(Vector<4> a, Vector<4> b) {
  return __builtin_shufflevector(a, b, 0, 4, 1, 5);
}
INLINE Vector<4> high(Vector<4> a, Vector<4> b) {
  return __builtin_shufflevector(a, b, 2, 6, 3, 7);
}
INLINE Vector<8> low(Vector<8> a, Vector<8> b) {
  return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
}
INLINE Vector<8> high(Vector<8> a, Vector<8> b) {
  return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}
INLINE Vector<16> low(Vector<16> a, Vector<16> b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6,
                                 22, 7, 23);
}
INLINE Vector<16> high(Vector<16> a, Vector<16> b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29,
                                 14, 30, 15, 31);
}

// Interleaving rows i and i + N/2, log2(N) times, is the transposition.
template <int N>
INLINE void transpose(Vector<N>* rows) {
#pragma GCC unroll 4
  for (int round = 1; round < N; round *= 2) {
    Vector<N> next[N];
#pragma GCC unroll 8
    for (int i = 0; i < N / 2; ++i) {
      next[2 * i] = low(rows[i], rows[i + N / 2]);
      next[2 * i + 1] = high(rows[i], rows[i + N / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) rows[i] = next[i];
  }
}

// The first few lanes of a vector, from and to memory that ends after them.
template <int N>
INLINE Vector<N> load_first(const float* from, i64 count) {
  Vector<N> result = {};
  for (i64 i = 0; i < count; ++i) result[i] = from[i];
  return result;
}
template <int N>
INLINE void store_first(float* to, Vector<N> value, i64 count) {
  for (i64 i = 0; i < count; ++i) to[i] = value[i];
}
#if defined(__AVX512F__)
template <>
INLINE Vector<16> load_first<16>(const float* from, i64 count) {
  return _mm512_maskz_loadu_ps((1u << count) - 1, from);
}
template <>
INLINE void store_first<16>(float* to, Vector<16> value, i64 count) {
  _mm512_mask_storeu_ps(to, (1u << count) - 1, value);
}
#endif

// The lanes of a vector that lie inside of a row with `width` columns, if the vector
// begins at column `first`; loads zeros for the others, and reads nothing there.
template <int N>
struct Inside {
  i64 begin, end;

  Inside() = default;
  INLINE Inside(i64 first, i64 width)
      : begin(first < 0 ? -first : 0), end(least(N, width - first)) {}

  INLINE Vector<N> load(const float* from) const {
    if (begin == 0 && end == N) return sparsejax_kernels::load<N>(from);
    Vector<N> result = {};
    for (i64 i = begin; i < end; ++i) result[i] = from[i];
    return result;
  }
};
#if defined(__AVX512F__)
template <>
struct Inside<16> {
  __mmask16 lanes;

  Inside() = default;
  INLINE Inside(i64 first, i64 width) {
    const i64 before = first < -16 ? 16 : first < 0 ? -first : 0;
    const i64 end = width <= first ? 0 : least(16, width - first);
    lanes = ((1u << end) - 1) & (0xffffu << before);
  }

  INLINE Vector<16> load(const float* from) const {
    return _mm512_maskz_loadu_ps(lanes, from);
  }
};
#elif defined(__AVX2__)
template <>
struct Inside<8> {
  __m256i lanes;

  Inside() = default;
  INLINE Inside(i64 first, i64 width) {
    const __m256i column = _mm256_add_epi32(_mm256_set1_epi32(static_cast<int>(first)),
                                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    lanes = _mm256_andnot_si256(
        _mm256_srai_epi32(column, 31),
        _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(width)), column));
  }

  INLINE Vector<8> load(const float* from) const {
    return _mm256_maskload_ps(from, lanes);
  }
};
#endif

// Lane l of a where bit H of l is 0, else of b, and added to it lane l ^ H of the same.
template <int H, int N, int... L>
INLINE Vector<N> fold(Vector<N> a, Vector<N> b, std::integer_sequence<int, L...>) {
  return __builtin_shufflevector(a, b, (L & H ? N + L : L)...) +
         __builtin_shufflevector(a, b, ((L & H ? N : 0) + (L ^ H))...);
}

// The sums of the lanes of N vectors, as the lanes of one. A blend and a shuffle for
// each addition: shuffles alone would be what a processor is short of.
template <int N, int H = N / 2>
INLINE Vector<N> totals(Vector<N>* rows) {
#pragma GCC unroll 8
  for (int i = 0; i < H; ++i)
    rows[i] = fold<H, N>(rows[i], rows[i + H], std::make_integer_sequence<int, N>());
  if constexpr (H > 1) return totals<N, H / 2>(rows);
  return rows[0];
}

template <int N>
INLINE float total(Vector<N> value) {
  float result = 0;
  for (int i = 0; i < N; ++i) result += value[i];
  return result;
}

}  // namespace
}  // namespace sparsejax_kernels

#endif  // SPARSEJAX_KERNELS_VECTORS_H_
