// Attention of one token over a cache: how the work is cut up.
#ifndef SPARSEJAX_KERNELS_ATTENTION_H_
#define SPARSEJAX_KERNELS_ATTENTION_H_

#include <cmath>

#include "fan_in.h"

namespace sparsejax_kernels {

// Keys and values [batch, groups, capacity, size].
struct Caches {
  const float* keys;
  const float* values;
  i64 batch;
  i64 groups;
  i64 capacity;
  i64 size;
};

// y[batch, groups, heads, size] for as many queries, of which those of sequence b see
// the tokens from first[b] up to last; false if last is not in the cache.
inline bool attend_rows(const Table& table, xla::ffi::ThreadPool& pool,
                        const float* queries, i64 heads, const Caches& caches,
                        const i32* first, i64 last, float* y) {
  if (last < 0 || last >= caches.capacity) return false;
  const i64 rows = caches.batch * caches.groups, size = caches.size;
  i64 threads = std::max<i64>(1, pool.num_threads());
  if (2 * rows * heads * (last + 1) * size < kWorthAThread) threads = 1;
  const float scale = 1 / std::sqrt(static_cast<float>(size));
  parallel_for(pool, rows, threads, [&](i64 row) {
    const i64 skipped = std::max<i64>(first[row / caches.groups], 0);
    const i64 begin = std::min(skipped, last), at = row * caches.capacity * size;
    const Seen seen = {caches.keys + at, caches.values + at, size, begin, last, scale};
    // The last vector of scores may not be full.
    float* scores = scratch(0, last + 1 - begin + 16);
    for (i64 head = row * heads; head < (row + 1) * heads; ++head)
      table.attend(queries + head * size, seen, scores, y + head * size);
  });
  return true;
}

}  // namespace sparsejax_kernels

#endif  // SPARSEJAX_KERNELS_ATTENTION_H_
