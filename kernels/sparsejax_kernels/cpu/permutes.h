// The product with packed weights at small batches: a register permutation selects the
// inputs.
#ifndef SPARSEJAX_KERNELS_PERMUTES_H_
#define SPARSEJAX_KERNELS_PERMUTES_H_

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "vectors.h"

namespace sparsejax_kernels {
namespace {

#if defined(__AVX512F__)

constexpr bool kPermutes = true;

// B rows of x at once, so that a weight is read once for all of them. Slots 0: any
// number, known when it runs; the loop over few slots costs as much as its body.
template <int B, int Slots>
bool permute_slices(const float* x, i64 stride, const Slices& slices, Epilogue epilogue,
                    float* y, i64 first, i64 last) {
  // Four sums in flight hide the latency of a multiply-add.
  constexpr int A = B >= 4 ? 1 : 4 / B;
  // Rows of x that stay in registers for all slots of a block.
  constexpr bool kHeld = B <= 2;
  const i64 slots = Slots ? Slots : slices.slots, columns = slices.slices * 16;
  const __m128i beyond = _mm_set1_epi8(static_cast<char>(0xe0));
  __m128i largest = _mm_setzero_si128();
  for (i64 s = first; s < last; ++s) {
    const float* values = slices.values + s * slices.stride;
    const u8* offsets = slices.offsets + s * slices.blocks * slots * 16;
    __m512 sums[B][A];
#pragma GCC unroll 8
    for (int b = 0; b < B; ++b)
#pragma GCC unroll 4
      for (int a = 0; a < A; ++a) sums[b][a] = _mm512_setzero_ps();
    // There may be nothing but a rest.
    const i64 blocks = slots ? slices.blocks : 0;
    for (i64 block = 0; block < blocks; ++block) {
      const float* from = x + block * 32;
      __m512 held[B][2];
      if (kHeld) {
#pragma GCC unroll 2
        for (int b = 0; b < B; ++b) {
          held[b][0] = _mm512_loadu_ps(from + b * stride);
          held[b][1] = _mm512_loadu_ps(from + b * stride + 16);
        }
      }
      auto step = [&](auto size) __attribute__((always_inline)) {
        constexpr int Q = decltype(size)::value;
        __m512 value[Q];
        __m512i offset[Q];
        __mmask16 inside[Q];
#pragma GCC unroll 4
        for (int q = 0; q < Q; ++q) {
          const __m128i bytes =
              _mm_loadu_si128(reinterpret_cast<const __m128i*>(offsets + q * 16));
          value[q] = _mm512_loadu_ps(values + q * 16);
          offset[q] = _mm512_cvtepu8_epi32(bytes);
          // Padding has to read a zero: a product with any input might be no number.
          inside[q] = _mm_testn_epi8_mask(bytes, beyond);
          largest = _mm_max_epu8(largest, bytes);
        }
#pragma GCC unroll 8
        for (int b = 0; b < B; ++b) {
          const __m512 low =
              kHeld ? held[b][0] : _mm512_loadu_ps(from + b * stride);
          const __m512 high =
              kHeld ? held[b][1] : _mm512_loadu_ps(from + b * stride + 16);
#pragma GCC unroll 4
          for (int q = 0; q < Q; ++q) {
            const __m512 input =
                _mm512_maskz_permutex2var_ps(inside[q], low, offset[q], high);
            sums[b][q % A] = _mm512_fmadd_ps(value[q], input, sums[b][q % A]);
          }
        }
        values += Q * 16, offsets += Q * 16;
      };
      if constexpr (Slots > 4) {
        step(Count<4>{});
        step(Count<Slots - 4>{});
      } else if constexpr (Slots != 0) {
        step(Count<Slots>{});
      } else {
        i64 q = 0;
        for (; q + 4 <= slots; q += 4) step(Count<4>{});
        for (; q < slots; ++q) step(Count<1>{});
      }
    }
#pragma GCC unroll 8
    for (int b = 0; b < B; ++b) {
      __m512 sum = sums[b][0];
#pragma GCC unroll 4
      for (int a = 1; a < A; ++a) sum = _mm512_add_ps(sum, sums[b][a]);
      if (epilogue.bias) sum = _mm512_add_ps(sum, _mm512_loadu_ps(epilogue.bias + s * 16));
      if (epilogue.relu) sum = positive<16>(sum);
      _mm512_storeu_ps(y + b * columns + s * 16, sum);
    }
  }
  const __m128i limit = _mm_set1_epi8(32);
  return _mm_cmpgt_epu8_mask(largest, limit) == 0;
}

template <int B>
bool permute_rows(const float* x, i64 stride, const Slices& slices, Epilogue epilogue,
                  float* y, i64 first, i64 last) {
#define CASE(Slots) \
  case Slots:       \
    return permute_slices<B, Slots>(x, stride, slices, epilogue, y, first, last)
  switch (slices.slots) {
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
  return permute_slices<B, 0>(x, stride, slices, epilogue, y, first, last);
}

#else

constexpr bool kPermutes = false;

// Without such a permutation: for a single row of x, where a panel would be empty.
template <int B>
bool permute_rows(const float* x, i64 stride, const Slices& slices, Epilogue epilogue,
                  float* y, i64 first, i64 last) {
  const i64 columns = slices.slices * 16, entries = slices.blocks * slices.slots;
  int largest = 0;
  for (i64 s = first; s < last; ++s) {
    const float* values = slices.values + s * slices.stride;
    const u8* offsets = slices.offsets + s * entries * 16;
    for (i64 e = 0; e < entries * 16; ++e)
      largest = offsets[e] > largest ? offsets[e] : largest;
    for (int b = 0; b < B; ++b) {
      float sums[16] = {};
      for (i64 block = 0, e = 0; block < slices.blocks; ++block) {
        const float* from = x + b * stride + block * 32;
        for (i64 q = 0; q < slices.slots; ++q, e += 16) {
#pragma GCC unroll 16
          for (int i = 0; i < 16; ++i) {
            const u8 offset = offsets[e + i];
            sums[i] += values[e + i] * (offset < 32 ? from[offset] : 0.f);
          }
        }
      }
      float* to = y + b * columns + s * 16;
      for (int i = 0; i < 16; ++i) {
        const float sum = sums[i] + (epilogue.bias ? epilogue.bias[s * 16 + i] : 0.f);
        to[i] = epilogue.relu && !(sum > 0) ? 0.f : sum;
      }
    }
  }
  return largest <= 32;
}

#endif

bool permute(const float* x, i64 stride, i64 batch, const Slices& slices,
             Epilogue epilogue, float* y, i64 first, i64 last) {
  switch (batch) {
    case 1:
      return permute_rows<1>(x, stride, slices, epilogue, y, first, last);
    case 2:
      return permute_rows<2>(x, stride, slices, epilogue, y, first, last);
    case 4:
      return permute_rows<4>(x, stride, slices, epilogue, y, first, last);
    case 8:
      return permute_rows<8>(x, stride, slices, epilogue, y, first, last);
  }
  return false;
}

}  // namespace
}  // namespace sparsejax_kernels

#endif  // SPARSEJAX_KERNELS_PERMUTES_H_
