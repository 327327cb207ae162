// The operations on fan-in weights: how the work is cut up and which kernel does it.
#ifndef SPARSEJAX_KERNELS_FAN_IN_H_
#define SPARSEJAX_KERNELS_FAN_IN_H_

#include <cstring>
#include <optional>
#include <vector>

#include "batches.h"
#include "parallel.h"
#include "table.h"

namespace sparsejax_kernels {

template <class Index>
const Kernels<Index>& kernels_of(const Table& table);
template <>
inline const Kernels<u16>& kernels_of(const Table& table) {
  return table.small;
}
template <>
inline const Kernels<i32>& kernels_of(const Table& table) {
  return table.large;
}

// Measured: on Zen 4 single loads bring twice as many elements a second as gathers.
inline bool slow_gathers() {
#if defined(SPARSEJAX_KERNELS_X86)
  static const bool slow = !__builtin_cpu_is("intel");
  return slow;
#else
  return true;
#endif
}

// Packs a batch of x into a panel that ends with the row of zeros which padding reads.
inline void pack_panel(const Table& table, const float* x, i64 columns, i64 batch,
                       int width, float* panel) {
  table.pack(x, columns, batch, width, panel, 0, columns);
  std::memset(panel + columns * width, 0, width * sizeof(float));
}

// y[b, r] = sum over the entries of row r, for x[batch, rows.limit] and all rows.
template <class Index>
bool multiply(const Table& table, xla::ffi::ThreadPool& pool, const float* x,
              i64 batch, const Rows<Index>& rows, Epilogue epilogue, float* y,
              i64 outputs) {
  const auto& kernels = kernels_of<Index>(table);
  const i64 inputs = rows.limit;
  i64 threads = std::max<i64>(1, pool.num_threads());
  if (rows.entries * batch < kWorthAThread) threads = 1;
  std::atomic<bool> fine{true};

  if (batch <= 2 && !rows.starts) {
    const i64 stride = inputs + 1;
    float* padded = scratch(0, batch * stride);
    for (i64 b = 0; b < batch; ++b) {
      std::memcpy(padded + b * stride, x + b * inputs, inputs * sizeof(float));
      padded[b * stride + inputs] = 0;
    }
    const auto gather = slow_gathers() ? kernels.collect : kernels.gather;
    const i64 parts = threads == 1 ? 1 : 2 * threads;
    const i64 size = ceil_div(ceil_div(outputs, parts), 16) * 16;
    parallel_for(pool, ceil_div(outputs, size), threads, [&](i64 part) {
      if (!gather(padded, stride, batch, rows, epilogue, y, outputs, part * size,
                  std::min(outputs, (part + 1) * size)))
        fine = false;
    });
    return fine;
  }

  const int width = width_of_panels(batch, threads);
  const auto fill = [&](i64 begin, i64 size, i64 first, i64 last, float* panel) {
    table.pack(x + begin * inputs, inputs, size, width, panel, first, last);
    if (last == inputs) std::memset(panel + inputs * width, 0, width * sizeof(float));
  };
  const auto sum = [&](const float* panel, i64 begin, i64 size, i64 first, i64 last) {
    if (!kernels.panel(panel, width, rows, epilogue, size, y + begin * outputs, outputs,
                       first, last))
      fine = false;
  };
  by_panels(pool, threads, batch, width, inputs + 1, inputs, outputs, fill, sum);
  return fine;
}

// A transposed index: row i has the entries starts[i] to starts[i + 1], entry e belongs
// to output owners[e] and has its value at values[positions[e]].
template <class Owner>
struct TransposedIndex {
  const i32* starts;
  const Owner* owners;
  const i32* positions;
  i64 inputs;
  i64 entries;
};

// Rows of a transposed index with their values in order; empty where it is corrupt.
template <class Owner>
std::optional<Rows<Owner>> arrange(const Table& table, xla::ffi::ThreadPool& pool,
                                   i64 threads, const float* values, i64 outputs,
                                   const TransposedIndex<Owner>& index) {
  const i32 *starts = index.starts;
  i64 falling = starts[0] < 0 || starts[index.inputs] > index.entries;
  for (i64 i = 0; i < index.inputs; ++i) falling += starts[i] > starts[i + 1];
  if (falling) return std::nullopt;
  const i64 begin = starts[0], size = starts[index.inputs] - begin;
  float* arranged = scratch(4, index.entries);
  const auto& kernels = kernels_of<Owner>(table);
  std::atomic<bool> fine{true};
  const i64 parts = size < 4 * 4096 ? 1 : 4 * threads;
  parallel_for(pool, parts, threads, [&](i64 part) {
    if (!kernels.arrange(values, index.positions, index.owners, index.entries, outputs,
                         arranged, begin + size * part / parts,
                         begin + size * (part + 1) / parts))
      fine = false;
  });
  if (!fine) return std::nullopt;
  return Rows<Owner>{arranged, index.owners, starts, 0, index.entries, outputs};
}

// gradient[o, j] = sum over b of cotangent[b, o] * x[b, indices[o, j]], and where index
// is not null input_gradient[b, i] = sum over the entries e of its row i of
// values[positions[e]] * cotangent[b, owners[e]].
template <class Index, class Owner>
bool gradients(const Table& table, xla::ffi::ThreadPool& pool, const float* cotangent,
               const float* x, i64 batch, i64 inputs, i64 outputs, const float* values,
               const Index* indices, i64 length, const TransposedIndex<Owner>* index,
               float* input_gradient, float* gradient) {
  const auto& kernels = kernels_of<Index>(table);
  const i64 entries = outputs * length;
  i64 threads = std::max<i64>(1, pool.num_threads());
  if (entries * batch < kWorthAThread) threads = 1;
  Rows<Owner> rows = {};
  if (index) {
    const auto arranged = arrange(table, pool, threads, values, outputs, *index);
    if (!arranged) return false;
    rows = *arranged;
  }
  // Panels of 64 were no faster: two of them leave the second cache.
  const int width = batch >= 32 * threads ? 32 : 16;
  const i64 panels = ceil_div(batch, width);
  const i64 inputs_size = (inputs + 1) * width, outputs_size = (outputs + 1) * width;
  std::atomic<bool> fine{true};
  if (panels < threads) {
    // Too few to give everybody one: they are shared, and the rows are cut up.
    float* inputs_panels = scratch(1, panels * inputs_size);
    float* outputs_panels = scratch(2, panels * outputs_size);
    parallel_for(pool, 2 * panels, threads, [&](i64 task) {
      const i64 p = task / 2, begin = p * width;
      const i64 size = std::min<i64>(width, batch - begin);
      if (task % 2) {
        pack_panel(table, x + begin * inputs, inputs, size, width,
                   inputs_panels + p * inputs_size);
      } else {
        pack_panel(table, cotangent + begin * outputs, outputs, size, width,
                   outputs_panels + p * outputs_size);
      }
    });
    const i64 inputs_cut = ceil_div(ceil_div(inputs, 4 * threads), 16) * 16;
    const i64 outputs_cut = ceil_div(ceil_div(outputs, 4 * threads), 16) * 16;
    const i64 inputs_parts = index ? ceil_div(inputs, inputs_cut) : 0;
    const i64 parts = inputs_parts + ceil_div(outputs, outputs_cut);
    parallel_for(pool, parts, threads, [&](i64 part) {
      for (i64 p = 0; p < panels; ++p) {
        const i64 begin = p * width, size = std::min<i64>(width, batch - begin);
        if (part < inputs_parts) {
          kernels_of<Owner>(table).panel(
              outputs_panels + p * outputs_size, width, rows, {nullptr, false}, size,
              input_gradient + begin * inputs, inputs, part * inputs_cut,
              std::min(inputs, (part + 1) * inputs_cut));
          continue;
        }
        const i64 first = (part - inputs_parts) * outputs_cut;
        if (!kernels.sample(outputs_panels + p * outputs_size,
                            inputs_panels + p * inputs_size, width, indices, length,
                            inputs, p > 0, gradient, first,
                            std::min(outputs, first + outputs_cut)))
          fine = false;
      }
    });
    return fine;
  }
  // Everybody sums its own batches into memory of its own; the sums are added at the end.
  const i64 groups = std::min({threads, panels, kMostThreads});
  float* partial = groups > 1 ? scratch(3, (groups - 1) * entries) : nullptr;
  parallel_for(pool, groups, threads, [&](i64 group) {
    float* inputs_panel = scratch(1, inputs_size);
    float* outputs_panel = scratch(2, outputs_size);
    float* sum = group == 0 ? gradient : partial + (group - 1) * entries;
    const i64 first = panels * group / groups;
    for (i64 p = first; p < panels * (group + 1) / groups; ++p) {
      const i64 begin = p * width, size = std::min<i64>(width, batch - begin);
      pack_panel(table, cotangent + begin * outputs, outputs, size, width,
                 outputs_panel);
      // While the panel of the cotangent is in the second cache and alone there.
      if (index)
        kernels_of<Owner>(table).panel(outputs_panel, width, rows, {nullptr, false},
                                       size, input_gradient + begin * inputs, inputs, 0,
                                       inputs);
      pack_panel(table, x + begin * inputs, inputs, size, width, inputs_panel);
      if (!kernels.sample(outputs_panel, inputs_panel, width, indices, length, inputs,
                          p > first, sum, 0, outputs)) {
        fine = false;
        return;
      }
    }
  });
  if (groups > 1) {
    const i64 size = ceil_div(ceil_div(entries, threads), 1024) * 1024;
    parallel_for(pool, ceil_div(entries, size), threads, [&](i64 part) {
      const i64 last = std::min(entries, (part + 1) * size);
      for (i64 group = 0; group < groups - 1; ++group) {
        const float* add = partial + group * entries;
        for (i64 e = part * size; e < last; ++e) gradient[e] += add[e];
      }
    });
  }
  return fine;
}

// input_gradient alone.
template <class Owner>
bool multiply_transposed(const Table& table, xla::ffi::ThreadPool& pool,
                         const float* cotangent, i64 batch, i64 outputs,
                         const float* values, const TransposedIndex<Owner>& index,
                         float* input_gradient) {
  const i64 threads = std::max<i64>(1, pool.num_threads());
  const auto rows = arrange(table, pool, threads, values, outputs, index);
  return rows && multiply(table, pool, cotangent, batch, *rows, {nullptr, false},
                          input_gradient, index.inputs);
}

// Groups the entries by input: a counting sort, whose order within an input is stable.
template <class Index, class Row>
bool transpose_index(const Index* indices, i64 outputs, i64 length, i64 inputs,
                     i32* starts, Row* rows, i32* positions) {
  const i64 entries = outputs * length;
  std::vector<i32> next(inputs + 2, 0);
  for (i64 e = 0; e < entries; ++e) {
    const uint32_t index = static_cast<uint32_t>(indices[e]);
    if (index > static_cast<uint32_t>(inputs)) return false;
    ++next[index + 1];
  }
  for (i64 i = 0; i <= inputs; ++i) next[i + 1] += next[i];
  for (i64 i = 0; i <= inputs; ++i) starts[i] = next[i];
  for (i64 o = 0, e = 0; o < outputs; ++o) {
    for (i64 k = 0; k < length; ++k, ++e) {
      const i32 place = next[indices[e]]++;
      rows[place] = static_cast<Row>(o);
      positions[place] = static_cast<i32>(e);
    }
  }
  return true;
}

}  // namespace sparsejax_kernels

#endif  // SPARSEJAX_KERNELS_FAN_IN_H_
