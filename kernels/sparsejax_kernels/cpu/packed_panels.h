// Sums over rows of a panel for packed weights: the product at larger batches.
#ifndef SPARSEJAX_KERNELS_PACKED_PANELS_H_
#define SPARSEJAX_KERNELS_PACKED_PANELS_H_

#include "panels.h"

namespace sparsejax_kernels {
namespace {

template <int N, int U, int V>
INLINE void store_sums(const Vector<N> (*sums)[V], float* to) {
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) {
    Vector<N> sum = sums[0][v];
#pragma GCC unroll 4
    for (int u = 1; u < U; ++u) sum += sums[u][v];
    store<N>(to + v * N, sum);
  }
}

// Adds to tile[16][W] what a slice has slots for in some blocks; panel and values begin
// with the first of them. Slots 0: any number, known when it runs.
template <int N, int W, int Slots>
void add_slots(const float* panel, const float* values, const u8* offsets, i64 blocks,
               i64 slots, bool clear, float* tile) {
  constexpr int V = W / N;
  // Enough sums in flight to hide the latency of a multiply-add, from as many blocks.
  constexpr int U = V >= 4 ? 1 : 4 / V, R = Slots ? (U + Slots - 1) / Slots : 1;
  for (int lane = 0; lane < 16; ++lane) {
    Vector<N> sums[U][V] = {};
    if (!clear) {
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sums[0][v] = load<N>(tile + lane * W + v * N);
    }
    const float* value = values + lane;
    const u8* offset = offsets + lane;
    const float* block = panel;
    auto add = [&](i64 slot, int sum) __attribute__((always_inline)) {
      const float* row = block + static_cast<i64>(offset[slot * 16]) * W;
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v)
        sums[sum][v] += value[slot * 16] * load<N>(row + v * N);
    };
    auto add_block = [&](int before) __attribute__((always_inline)) {
#pragma GCC unroll 8
      for (int q = 0; q < Slots; ++q) add(q, (before + q) % U);
      if (Slots == 0) {
        i64 q = 0;
        for (; q + U <= slots; q += U) {
#pragma GCC unroll 4
          for (int u = 0; u < U; ++u) add(q + u, u);
        }
        for (; q < slots; ++q) add(q, 0);
      }
      const i64 count = Slots ? Slots : slots;
      value += count * 16, offset += count * 16, block += kRowsOfBlock * W;
    };
    i64 b = 0;
    for (; b + R <= blocks; b += R) {
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) add_block(r * Slots);
    }
    for (; b < blocks; ++b) add_block(0);
    store_sums<N, U, V>(sums, tile + lane * W);
  }
}

// Adds the rest of a slice.
template <class Index, int N, int W>
void add_depth(const float* panel, const float* values, const Index* inputs, i64 depth,
               float* tile) {
  constexpr int V = W / N, U = V >= 4 ? 1 : 4 / V;
  for (int lane = 0; lane < 16; ++lane) {
    Vector<N> sums[U][V] = {};
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) sums[0][v] = load<N>(tile + lane * W + v * N);
    auto add = [&](i64 d, int u) __attribute__((always_inline)) {
      const i64 input = inputs[d * 16 + lane];
      const float* row = panel + (input + input / 32) * W;
      const float value = values[d * 16 + lane];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sums[u][v] += value * load<N>(row + v * N);
    };
    i64 d = 0;
    for (; d + U <= depth; d += U) {
#pragma GCC unroll 4
      for (int u = 0; u < U; ++u) add(d + u, u);
    }
    for (; d < depth; ++d) add(d, 0);
    store_sums<N, U, V>(sums, tile + lane * W);
  }
}

inline bool offsets_in_range(const u8* offsets, i64 count) {
  u8 largest = 0;
  for (i64 i = 0; i < count; ++i) largest = offsets[i] > largest ? offsets[i] : largest;
  return largest <= 32;
}

template <int N, int W>
auto adding(i64 slots) {
  switch (slots) {
    case 1:
      return add_slots<N, W, 1>;
    case 2:
      return add_slots<N, W, 2>;
    case 3:
      return add_slots<N, W, 3>;
    case 4:
      return add_slots<N, W, 4>;
    case 8:
      return add_slots<N, W, 8>;
  }
  return add_slots<N, W, 0>;
}

template <class Index, int N, int W>
bool sum_slices(const float* panel, const Slices& slices, const Rest<Index>& rest,
                Epilogue epilogue, i64 batch, float* sums, float* y, i64 stride,
                i64 first, i64 last) {
  // Of the blocks that the first cache keeps, all slices take what they need. In wide
  // panels it keeps fewer, but sums would be read and written again too often.
  constexpr i64 kBlocks = W <= 32 ? 128 / W : 4;
  const i64 slots = slices.slots, blocks = slots ? slices.blocks : 0;
  const auto add = adding<N, W>(slots);
  i64 block = 0;
  do {
    const i64 size = least(kBlocks, blocks - block);
    const bool final = block + size == blocks;
    for (i64 s = first; s < last; ++s) {
      float* tile = sums + (s - first) * 16 * W;
      const i64 entry = block * slots * 16;
      const u8* offsets = slices.offsets + s * slices.blocks * slots * 16 + entry;
      if (!offsets_in_range(offsets, size * slots * 16)) return false;
      add(panel + block * kRowsOfBlock * W, slices.values + s * slices.stride + entry,
          offsets, size, slots, block == 0, tile);
      if (!final) continue;
      if (rest.depth) {
        const Index* inputs = rest.inputs + s * rest.depth * 16;
        const i64 count = without_padding(inputs, rest.depth * 16, rest.limit);
        const i64 depth = (count + 15) / 16;
        if (!in_range(inputs, depth * 16, rest.limit)) return false;
        add_depth<Index, N, W>(panel, rest.values + s * rest.stride, inputs, depth, tile);
      }
      if (epilogue.bias || epilogue.relu) {
        for (int lane = 0; lane < 16; ++lane) {
          const float bias = epilogue.bias ? epilogue.bias[s * 16 + lane] : 0.f;
          for (int v = 0; v < W; v += N) {
            const Vector<N> sum = load<N>(tile + lane * W + v) + bias;
            store<N>(tile + lane * W + v, epilogue.relu ? positive<N>(sum) : sum);
          }
        }
      }
      for (int lane = 0; lane < 16; lane += N)
        unpack<N, W>(tile + lane * W, N, batch, y + s * 16 + lane, stride);
    }
    block += size;
  } while (block < blocks);
  return true;
}

template <class Index>
bool packed_panel(const float* panel, int width, const Slices& slices,
                  const Rest<Index>& rest, Epilogue epilogue, i64 batch, float* sums,
                  float* y, i64 stride, i64 first, i64 last) {
  switch (width) {
    case 8:
      return sum_slices<Index, (kLanes < 8 ? kLanes : 8), 8>(
          panel, slices, rest, epilogue, batch, sums, y, stride, first, last);
    case 16:
      return sum_slices<Index, kLanes, 16>(panel, slices, rest, epilogue, batch, sums,
                                           y, stride, first, last);
    case 32:
      return sum_slices<Index, kLanes, 32>(panel, slices, rest, epilogue, batch, sums,
                                           y, stride, first, last);
    case 64:
      return sum_slices<Index, kLanes, kWidest>(panel, slices, rest, epilogue, batch,
                                                sums, y, stride, first, last);
  }
  return false;
}

}  // namespace
}  // namespace sparsejax_kernels

#endif  // SPARSEJAX_KERNELS_PACKED_PANELS_H_
