// Loops on XLA's own threads, and scratch memory that stays with a thread.
#ifndef SPARSEJAX_KERNELS_PARALLEL_H_
#define SPARSEJAX_KERNELS_PARALLEL_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

#include "table.h"
#if !defined(SPARSEJAX_KERNELS_WITHOUT_XLA)
#include "xla/ffi/api/ffi.h"
#endif

namespace sparsejax_kernels {

constexpr i64 kMostThreads = 64;

// Below this many multiply-adds waking another thread costs more than it brings.
constexpr i64 kWorthAThread = 60000;

inline i64 ceil_div(i64 a, i64 b) { return (a + b - 1) / b; }

// The processor that the thread runs on, -1 where that is not known.
inline int this_processor() {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -1;
#endif
}

// Moves the thread to another processor of those it may run on. Where there are few,
// Linux may wake a helper on the processor of its caller, whom it then keeps from
// working, while another one is idle; and it stays there from call to call.
inline void leave_processor(int processor) {
#if defined(__linux__)
  cpu_set_t all;
  if (sched_getaffinity(0, sizeof(all), &all) != 0) return;
  cpu_set_t others = all;
  CPU_CLR(processor, &others);
  if (CPU_COUNT(&others) == 0) return;
  if (sched_setaffinity(0, sizeof(others), &others) == 0)
    sched_setaffinity(0, sizeof(all), &all);
#endif
}

struct LoopState {
  struct alignas(64) Range {
    std::atomic<i64> next;
    i64 end;
  };
  Range ranges[kMostThreads];
  alignas(64) std::atomic<i64> done{0};
  std::atomic<int> arrived{1};
  int processor = this_processor();
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
    pool.Schedule([state, work, count] {
      if (state->processor >= 0 && this_processor() == state->processor &&
          state->done.load(std::memory_order_relaxed) < count)
        leave_processor(state->processor);
      work(*state, state->arrived.fetch_add(1));
    });
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
