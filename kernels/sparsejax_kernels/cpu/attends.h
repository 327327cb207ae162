// Attention of one token: scores of all that it sees, their softmax, and what it takes.
#ifndef SPARSEJAX_KERNELS_ATTENDS_H_
#define SPARSEJAX_KERNELS_ATTENDS_H_

#include "vectors.h"

namespace sparsejax_kernels {
namespace {

// exp(x) for x <= 0 to two units in the last place; below -87 it is that of -87.
INLINE Vector<kLanes> exponential(Vector<kLanes> x) {
  typedef i32 Integers __attribute__((vector_size(4 * kLanes)));
  const Vector<kLanes> least = broadcast<kLanes>(-87.0f);
  x = x < least ? least : x;
  // Adding this rounds to an integer, which the lowest bits of the sum then hold.
  const Vector<kLanes> rounder = broadcast<kLanes>(12582912.0f);
  const Vector<kLanes> rounded = x * 1.44269504f + rounder;
  const Vector<kLanes> whole = rounded - rounder;
  const Vector<kLanes> rest = x - whole * 0.693359375f - whole * -2.12194440e-4f;
  Vector<kLanes> series = broadcast<kLanes>(1.9875691500e-4f);
  series = series * rest + 1.3981999507e-3f;
  series = series * rest + 8.3334519073e-3f;
  series = series * rest + 4.1665795894e-2f;
  series = series * rest + 1.6666665459e-1f;
  series = series * rest + 5.0000001201e-1f;
  series = series * (rest * rest) + rest + 1.0f;
  Integers power;
  memcpy(&power, &rounded, sizeof(power));
  power = (power << 23) + (127 << 23);
  Vector<kLanes> scale;
  memcpy(&scale, &power, sizeof(scale));
  return series * scale;
}

INLINE Vector<kLanes> larger(Vector<kLanes> a, Vector<kLanes> b) {
  return a > b ? a : b;
}

void attend(const float* query, const Seen& seen, float* scores, float* y) {
  const i64 count = seen.last + 1 - seen.first, size = seen.size;
  const i64 whole = size / kLanes * kLanes;
  const float* keys = seen.keys + seen.first * size;
  const float* values = seen.values + seen.first * size;
  const Vector<kLanes> lowest = broadcast<kLanes>(-3e38f);
  Vector<kLanes> most = lowest;
  for (i64 c = 0; c < count; c += kLanes) {
    const i64 here = least(kLanes, count - c);
    Vector<kLanes> sums[kLanes] = {};
    for (i64 k = 0; k < whole; k += kLanes) {
      const Vector<kLanes> part = load<kLanes>(query + k);
      const float* key = keys + c * size + k;
      if (here == kLanes) {
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) sums[i] += part * load<kLanes>(key + i * size);
      } else {
        for (i64 i = 0; i < here; ++i) sums[i] += part * load<kLanes>(key + i * size);
      }
    }
    if (whole < size) {
      const Vector<kLanes> part = load_first<kLanes>(query + whole, size - whole);
      const float* key = keys + c * size + whole;
      for (i64 i = 0; i < here; ++i)
        sums[i] += part * load_first<kLanes>(key + i * size, size - whole);
    }
    Vector<kLanes> score = totals<kLanes>(sums) * seen.scale;
    if (here < kLanes) {
      Vector<kLanes> padded = lowest;
      for (i64 i = 0; i < here; ++i) padded[i] = score[i];
      score = padded;
    }
    store<kLanes>(scores + c, score);
    most = larger(most, score);
  }
  float largest = most[0];
  for (int i = 1; i < kLanes; ++i) largest = most[i] > largest ? most[i] : largest;
  Vector<kLanes> weights = {};
  for (i64 c = 0; c < count; c += kLanes) {
    const Vector<kLanes> share = exponential(load<kLanes>(scores + c) - largest);
    store<kLanes>(scores + c, share);
    weights += share;
  }
  const float each = 1 / total<kLanes>(weights);
  i64 k = 0;
  for (; k + 4 * kLanes <= size; k += 4 * kLanes) {
    Vector<kLanes> sums[4] = {};
    for (i64 c = 0; c < count; ++c) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i)
        sums[i] += scores[c] * load<kLanes>(values + c * size + k + i * kLanes);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) store<kLanes>(y + k + i * kLanes, sums[i] * each);
  }
  for (; k < size; k += kLanes) {
    const i64 here = least(kLanes, size - k);
    Vector<kLanes> sum = {};
    for (i64 c = 0; c < count; ++c) {
      const float* value = values + c * size + k;
      sum += scores[c] *
             (here == kLanes ? load<kLanes>(value) : load_first<kLanes>(value, here));
    }
    store_first<kLanes>(y + k, sum * each, here);
  }
}

}  // namespace
}  // namespace sparsejax_kernels

#endif  // SPARSEJAX_KERNELS_ATTENDS_H_
