// The operations on block weights: how the work is cut up and in which order it is done.
#ifndef SPARSEJAX_KERNELS_BLOCKS_H_
#define SPARSEJAX_KERNELS_BLOCKS_H_

#include <cstring>
#include <vector>

#include "fan_in.h"

namespace sparsejax_kernels {

// Blocks of [height, width] weights; coordinates are pairs of a row and a column, those
// of a padding block one past the last.
struct Blocks {
  const float* values;
  const i32* coordinates;
  i64 count;
  i64 height;
  i64 width;
};

inline i64 whole_vectors(i64 size) { return ceil_div(size, 4) * 4; }

inline bool legal_blocks(const Blocks& blocks, i64 rows, i64 columns) {
  for (i64 b = 0; b < blocks.count; ++b) {
    const i64 row = blocks.coordinates[2 * b], column = blocks.coordinates[2 * b + 1];
    if (row < 0 || row > rows || column < 0 || column > columns) return false;
  }
  return true;
}

// y[batch, outputs] = x[batch, inputs] times the weight, or times its transpose.
inline bool multiply_blocks(const Table& table, xla::ffi::ThreadPool& pool,
                            const float* x, i64 batch, i64 inputs, const Blocks& blocks,
                            bool transposed, Epilogue epilogue, float* y, i64 outputs) {
  const i64 depth = transposed ? blocks.width : blocks.height;
  const i64 across = transposed ? blocks.height : blocks.width;
  const i64 sources = ceil_div(inputs, depth), targets = ceil_div(outputs, across);
  const i64 stride = whole_vectors(across), size = depth * stride;
  if (!legal_blocks(blocks, transposed ? targets : sources,
                    transposed ? sources : targets))
    return false;
  if (batch == 0) return true;
  i64 threads = std::max<i64>(1, pool.num_threads());
  if (blocks.count * size * batch < kWorthAThread) threads = 1;

  // A counting sort by target, whatever the order of the blocks.
  std::vector<i64> starts(targets + 2, 0);
  std::vector<i64> next(targets + 1, 0);
  std::vector<i64> ordered(blocks.count);
  const auto target_of = [&](i64 b) {
    const i64 target = blocks.coordinates[2 * b + !transposed];
    return blocks.coordinates[2 * b + transposed] < sources ? target : targets;
  };
  for (i64 b = 0; b < blocks.count; ++b) ++starts[target_of(b) + 1];
  for (i64 t = 0; t <= targets; ++t) starts[t + 1] += next[t] = starts[t];
  for (i64 b = 0; b < blocks.count; ++b) ordered[next[target_of(b)]++] = b;

  const float* values = blocks.values;
  if (transposed || stride != across) {
    float* copy = scratch(0, blocks.count * size);
    const i64 each = std::max<i64>(1, 4096 / size);
    parallel_for(pool, ceil_div(blocks.count, each), threads, [&](i64 part) {
      for (i64 b = part * each; b < std::min(blocks.count, (part + 1) * each); ++b) {
        const float* from = blocks.values + b * depth * across;
        float* to = copy + b * size;
        if (transposed) {
          table.transpose_block(from, across, depth, stride, to);
          continue;
        }
        for (i64 k = 0; k < depth; ++k) {
          std::memcpy(to + k * stride, from + k * across, across * sizeof(float));
          std::memset(to + k * stride + across, 0, (stride - across) * sizeof(float));
        }
      }
    });
    values = copy;
  }

  const i64 tiles = ceil_div(batch, table.tallest);
  const auto begin_of = [&](i64 tile) { return batch * tile / tiles; };
  const i64 rows = sources * depth;
  // A vector more than the tile, since packing writes whole ones.
  const i64 tile_size = ceil_div(rows * ceil_div(batch, tiles), 16) * 16 + 16;
  const auto pack = [&](i64 tile, float* to, i64 first, i64 last) {
    const i64 begin = begin_of(tile), height = begin_of(tile + 1) - begin;
    table.pack_tile(x + begin * inputs, height, inputs, first, last, to);
    if (last == inputs)
      std::memset(to + inputs * height, 0,
                  (rows - inputs) * height * sizeof(float));
  };
  const auto terms_of = [&](i64 height) {
    std::vector<Term> terms(blocks.count);
    for (i64 e = 0; e < blocks.count; ++e) {
      const i64 source = blocks.coordinates[2 * ordered[e] + transposed];
      terms[e] = {source * depth * height, ordered[e] * size};
    }
    return terms;
  };
  // Tiles have one of two heights.
  const i64 low = batch / tiles;
  const std::vector<Term> terms[2] = {terms_of(low), terms_of(low + 1)};
  const auto sum = [&](i64 tile, const float* packed, i64 target) {
    const i64 begin = begin_of(tile), height = begin_of(tile + 1) - begin;
    const i64 output = target * across;
    Products products;
    products.terms = terms[height - low].data() + starts[target];
    products.count = starts[target + 1] - starts[target];
    products.depth = depth;
    products.left = packed;
    products.left_stride = height;
    products.right = values;
    products.right_stride = stride;
    products.columns = std::min(across, outputs - output);
    products.epilogue = epilogue;
    if (epilogue.bias) products.epilogue.bias += output;
    products.bias_of_rows = false;
    products.y = y + begin * outputs + output;
    products.y_stride = outputs;
    table.sum_tile(products, height);
  };

  if (tiles >= 2 * threads) {
    // Each thread packs what it multiplies; a few tiles at a time share the weights.
    const i64 few = std::max<i64>(1, (i64{1} << 16) / tile_size);
    const i64 group = std::min(few, ceil_div(tiles, 2 * threads));
    parallel_for(pool, ceil_div(tiles, group), threads, [&](i64 part) {
      const i64 first = part * group, last = std::min(tiles, first + group);
      float* packed = scratch(1, group * tile_size);
      for (i64 tile = first; tile < last; ++tile)
        pack(tile, packed + (tile - first) * tile_size, 0, inputs);
      for (i64 target = 0; target < targets; ++target)
        for (i64 tile = first; tile < last; ++tile)
          sum(tile, packed + (tile - first) * tile_size, target);
    });
    return true;
  }
  float* packed = scratch(1, tiles * tile_size);
  const i64 cuts = inputs * batch < 16384 ? 1 : threads;
  parallel_for(pool, tiles * cuts, threads, [&](i64 task) {
    const i64 tile = task / cuts, cut = task % cuts;
    pack(tile, packed + tile * tile_size, inputs * cut / cuts,
         inputs * (cut + 1) / cuts);
  });
  const i64 parts = std::min(targets, threads == 1 ? 1 : ceil_div(4 * threads, tiles));
  parallel_for(pool, tiles * parts, threads, [&](i64 task) {
    const i64 tile = task / parts, part = task % parts;
    for (i64 t = targets * part / parts; t < targets * (part + 1) / parts; ++t)
      sum(tile, packed + tile * tile_size, t);
  });
  return true;
}

// gradient[block, i, o] = sum over b of x[b, row + i] * cotangent[b, column + o].
inline bool sample_blocks(const Table& table, xla::ffi::ThreadPool& pool,
                          const float* cotangent, const float* x, i64 batch, i64 inputs,
                          i64 outputs, const Blocks& blocks, float* gradient) {
  const i64 height = blocks.height, width = blocks.width;
  const i64 rows = ceil_div(inputs, height), columns = ceil_div(outputs, width);
  const i64 stride = whole_vectors(width), size = height * width;
  if (!legal_blocks(blocks, rows, columns)) return false;
  i64 threads = std::max<i64>(1, pool.num_threads());
  if (blocks.count * size * batch < kWorthAThread) threads = 1;

  // A row or column of blocks at a time, since what lies far apart in x and in the
  // cotangent falls on the same few lines of a cache.
  float* lefts = scratch(0, rows * batch * height);
  float* rights = scratch(1, columns * batch * stride);
  const auto gather = [&](const float* from, i64 features, i64 first, i64 side,
                          i64 step, float* to) {
    const i64 valid = std::min(side, features - first);
    for (i64 b = 0; b < batch; ++b) {
      std::memcpy(to + b * step, from + b * features + first, valid * sizeof(float));
      std::memset(to + b * step + valid, 0, (step - valid) * sizeof(float));
    }
  };
  parallel_for(pool, rows + columns, threads, [&](i64 part) {
    const i64 column = part - rows;
    if (column < 0)
      gather(x, inputs, part * height, height, height, lefts + part * batch * height);
    else
      gather(cotangent, outputs, column * width, width, stride,
             rights + column * batch * stride);
  });
  const i64 each = std::max<i64>(1, 4096 / size);
  parallel_for(pool, ceil_div(blocks.count, each), threads, [&](i64 part) {
    for (i64 b = part * each; b < std::min(blocks.count, (part + 1) * each); ++b) {
      const i64 row = blocks.coordinates[2 * b], column = blocks.coordinates[2 * b + 1];
      if (row == rows || column == columns) {
        std::memset(gradient + b * size, 0, size * sizeof(float));
        continue;
      }
      const i64 tiles = ceil_div(height, table.tallest);
      for (i64 tile = 0; tile < tiles; ++tile) {
        const i64 first = height * tile / tiles, last = height * (tile + 1) / tiles;
        const Term term = {(row * batch) * height + first, column * batch * stride};
        const Products products = {&term,   1,      batch,  lefts,
                                   height,  rights, stride, width,
                                   {nullptr, false}, false,
                                   gradient + b * size + first * width, width};
        table.sum_tile(products, last - first);
      }
    }
  });
  return true;
}

}  // namespace sparsejax_kernels

#endif  // SPARSEJAX_KERNELS_BLOCKS_H_
