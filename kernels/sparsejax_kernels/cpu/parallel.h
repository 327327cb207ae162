// Loops on XLA's own threads, and scratch memory that stays with a thread.
#ifndef SPARSEJAX_KERNELS_PARALLEL_H_
#define SPARSEJAX_KERNELS_PARALLEL_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <thread>

#include "table.h"
#if !defined(SPARSEJAX_KERNELS_WITHOUT_XLA)
#include "xla/ffi/api/ffi.h"
#endif

namespace sparsejax_kernels {

constexpr i64 kMostThreads = 64;

struct LoopState {
  struct alignas(64) Range {
    std::atomic<i64> next;
    i64 end;
  };
  Range ranges[kMostThreads];
  alignas(64) std::atomic<i64> done{0};
  std::atomic<int> arrived{1};
};

// Runs body(i) for i < count. The caller takes part and never waits for a task that has
// not started, so it cannot deadlock even where all threads are inside of a handler.
// Everybody begins with a range of its own, so that from call to call the same data meet
// the same core, and then helps the others.
template <class Body>
void parallel_for(xla::ffi::ThreadPool& pool, i64 count, i64 threads, Body&& body) {
  threads = std::min({threads, count, kMostThreads});
  if (threads <= 1) {
    for (i64 i = 0; i < count; ++i) body(i);
    return;
  }
  auto state = std::make_shared<LoopState>();
  for (i64 t = 0; t < threads; ++t) {
    state->ranges[t].next = count * t / threads;
    state->ranges[t].end = count * (t + 1) / threads;
  }
  // Only calls that were claimed touch the body, and we return after the last of them.
  auto* run = &body;
  auto work = [threads, run](LoopState& state, int me) {
    for (i64 k = 0; k < threads; ++k) {
      auto& range = state.ranges[(me + k) % threads];
      for (i64 i; (i = range.next.fetch_add(1)) < range.end;) {
        (*run)(i);
        state.done.fetch_add(1, std::memory_order_release);
      }
    }
  };
  for (i64 t = 1; t < threads; ++t) {
    pool.Schedule([state, work] { work(*state, state->arrived.fetch_add(1)); });
  }
  work(*state, 0);
  for (int spins = 0; state->done.load(std::memory_order_acquire) < count; ++spins) {
    if (spins < 10000) {
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    } else {
      std::this_thread::yield();
    }
  }
}

// Memory of a thread that grows and is reused; slots of one thread do not overlap.
inline float* scratch(int slot, i64 floats) {
  struct Buffer {
    float* data = nullptr;
    i64 size = 0;
    ~Buffer() { std::free(data); }
  };
  static thread_local Buffer buffers[5];
  Buffer& buffer = buffers[slot];
  if (buffer.size < floats) {
    std::free(buffer.data);
    const size_t bytes = (floats * sizeof(float) + 4095) / 4096 * 4096;
    buffer.data = static_cast<float*>(std::aligned_alloc(4096, bytes));
    buffer.size = buffer.data ? floats : 0;
    if (!buffer.data) std::abort();
  }
  return buffer.data;
}

}  // namespace sparsejax_kernels

#endif  // SPARSEJAX_KERNELS_PARALLEL_H_
