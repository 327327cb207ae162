// Runs the kernels on random shapes and on corrupt indices, for the sanitizers: every
// array is exactly as long as it has to be, so that a wild read or write is seen.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <thread>
#include <vector>

// One thread in the place of XLA's, and nothing else of its interface.
namespace xla::ffi {
struct ThreadPool {
  int64_t threads;
  std::vector<std::thread>* running;
  int64_t num_threads() const { return threads; }
  template <class Task>
  void Schedule(Task&& task) {
    running->emplace_back(std::forward<Task>(task));
  }
};
}  // namespace xla::ffi

#include "attention.h"
#include "blocks.h"
#include "convolutions.h"
#include "fan_in.h"
#include "packed.h"

namespace {

using namespace sparsejax_kernels;

std::mt19937 generator(0);

i64 below(i64 end) { return std::uniform_int_distribution<i64>(0, end - 1)(generator); }

std::vector<float> floats(i64 size) {
  std::vector<float> result(size);
  for (float& each : result) each = std::normal_distribution<float>()(generator);
  return result;
}

// Fails loudly, whatever NDEBUG says.
void expect(bool truth, const char* what) {
  if (truth) return;
  std::printf("failed: %s\n", what);
  std::exit(1);
}

bool close(const std::vector<float>& found, const std::vector<double>& expected) {
  for (size_t i = 0; i < found.size(); ++i)
    if (!(std::abs(found[i] - expected[i]) <= 1e-3)) return false;
  return true;
}

template <class Index>
void once(const Table& table, i64 threads) {
  const i64 inputs = 1 + below(300), outputs = 1 + below(80);
  const i64 length = 1 + below(inputs), batch = 1 + below(below(4) ? 20 : 150);
  const auto x = floats(batch * inputs), values = floats(outputs * length);
  const auto cotangent = floats(batch * outputs), bias = floats(outputs);
  std::vector<Index> indices(outputs * length);
  // The last one is padding.
  for (Index& each : indices) each = static_cast<Index>(below(inputs + 1));
  std::vector<float> y(batch * outputs), dx(batch * inputs), dvalues(indices.size());
  std::vector<float> dx_too(dx.size()), dvalues_too(dvalues.size());
  std::vector<double> y_is(y.size()), dx_is(dx.size()), dvalues_is(dvalues.size());
  for (i64 b = 0; b < batch; ++b) {
    for (i64 o = 0; o < outputs; ++o) {
      double sum = bias[o];
      for (i64 e = o * length; e < (o + 1) * length; ++e) {
        const i64 i = indices[e];
        if (i == inputs) continue;
        sum += static_cast<double>(values[e]) * x[b * inputs + i];
        dx_is[b * inputs + i] += static_cast<double>(values[e]) * cotangent[b * outputs + o];
        dvalues_is[e] += static_cast<double>(cotangent[b * outputs + o]) * x[b * inputs + i];
      }
      y_is[b * outputs + o] = std::max(sum, 0.0);
    }
  }

  std::vector<i32> starts(inputs + 1), positions(indices.size());
  std::vector<Index> owners(indices.size());
  auto run = [&](int which) {
    std::vector<std::thread> running;
    xla::ffi::ThreadPool pool{threads, &running};
    const Rows<Index> rows = {values.data(), indices.data(),    nullptr,
                              length,        outputs * length, inputs};
    const TransposedIndex<Index> index = {starts.data(), owners.data(), positions.data(),
                                          inputs, outputs * length};
    const TransposedIndex<Index>* none = nullptr;
    bool fine = false;
    if (which == 0)
      fine = multiply(table, pool, x.data(), batch, rows, {bias.data(), true}, y.data(),
                      outputs);
    if (which == 1)
      fine = gradients(table, pool, cotangent.data(), x.data(), batch, inputs, outputs,
                       nullptr, indices.data(), length, none, nullptr, dvalues.data());
    if (which == 2)
      fine = transpose_index(indices.data(), outputs, length, inputs, starts.data(),
                             owners.data(), positions.data());
    if (which == 3)
      fine = multiply_transposed(table, pool, cotangent.data(), batch, outputs,
                                 values.data(), index, dx.data());
    if (which == 4)
      fine = gradients(table, pool, cotangent.data(), x.data(), batch, inputs, outputs,
                       values.data(), indices.data(), length, &index, dx_too.data(),
                       dvalues_too.data());
    for (auto& thread : running) thread.join();
    return fine;
  };
  for (int which = 0; which < 5; ++which) expect(run(which), "a legal weight is refused");
  expect(close(y, y_is), "forward");
  expect(close(dvalues, dvalues_is), "gradient of the values");
  expect(close(dx, dx_is), "gradient of the inputs");
  expect(close(dvalues_too, dvalues_is) && close(dx_too, dx_is), "both gradients");

  auto corrupt = [&](auto& array, i64 bad, std::initializer_list<int> users) {
    auto& victim = array[below(array.size())];
    const auto before = victim;
    victim = static_cast<std::decay_t<decltype(before)>>(bad);
    for (int which : users) expect(!run(which), "a corrupt index is accepted");
    victim = before;
  };
  corrupt(indices, inputs + 1 + below(1000), {0, 1, 2, 4});
  corrupt(indices, -1, {0, 1, 2, 4});
  // What was sorted by corrupt indices is stale.
  expect(run(2), "transpose");
  corrupt(positions, -1 - below(100), {});
  corrupt(starts, -7, {3, 4});
  corrupt(starts, 1 << 30, {3, 4});
  if (starts.back() > 0) {
    const i64 used = below(starts.back());
    const Index owner = owners[used];
    owners[used] = static_cast<Index>(outputs + 1 + below(99));
    expect(!run(3) && !run(4), "a corrupt owner is accepted");
    owners[used] = owner;
    positions[used] = static_cast<i32>(indices.size());
    expect(!run(3) && !run(4), "a corrupt position is accepted");
  }
}

// Runs with a pool of some threads, and waits for all of them.
template <class Body>
auto with_pool(i64 threads, Body&& body) {
  std::vector<std::thread> running;
  xla::ffi::ThreadPool pool{threads, &running};
  const auto result = body(pool);
  for (auto& thread : running) thread.join();
  return result;
}

void blocks_once(const Table& table, i64 threads) {
  const i64 inputs = 1 + below(150), outputs = 1 + below(100), batch = 1 + below(80);
  const i64 height = 1 + below(40), width = 1 + below(40);
  const i64 rows = ceil_div(inputs, height), columns = ceil_div(outputs, width);
  const i64 count = below(2 * rows * columns + 1), size = height * width;
  const auto x = floats(batch * inputs), cotangent = floats(batch * outputs);
  const auto values = floats(count * size), bias = floats(outputs);
  // In any order, some twice, some padding.
  std::vector<i32> coordinates(2 * count);
  for (i64 i = 0; i < count; ++i) {
    coordinates[2 * i] = static_cast<i32>(below(rows + 1));
    coordinates[2 * i + 1] = static_cast<i32>(below(columns + 1));
  }
  std::vector<float> y(batch * outputs), dx(batch * inputs), dvalues(count * size);
  std::vector<double> y_is(y.size()), dx_is(dx.size()), dvalues_is(dvalues.size());
  for (i64 b = 0; b < batch; ++b) {
    for (i64 o = 0; o < outputs; ++o) y_is[b * outputs + o] = bias[o];
    for (i64 e = 0; e < count * size; ++e) {
      const i64 row = coordinates[2 * (e / size)];
      const i64 column = coordinates[2 * (e / size) + 1];
      const i64 i = row * height + e % size / width, o = column * width + e % width;
      if (row == rows || column == columns || i >= inputs || o >= outputs) continue;
      const double value = values[e], read = x[b * inputs + i];
      y_is[b * outputs + o] += value * read;
      dx_is[b * inputs + i] += value * cotangent[b * outputs + o];
      dvalues_is[e] += read * cotangent[b * outputs + o];
    }
    for (i64 o = 0; o < outputs; ++o)
      y_is[b * outputs + o] = std::max(y_is[b * outputs + o], 0.0);
  }
  auto run = [&](int which) {
    const Blocks blocks = {values.data(), coordinates.data(), count, height, width};
    return with_pool(threads, [&](xla::ffi::ThreadPool& pool) {
      if (which == 0)
        return multiply_blocks(table, pool, x.data(), batch, inputs, blocks, false,
                               {bias.data(), true}, y.data(), outputs);
      if (which == 1)
        return multiply_blocks(table, pool, cotangent.data(), batch, outputs, blocks,
                               true, {nullptr, false}, dx.data(), inputs);
      return sample_blocks(table, pool, cotangent.data(), x.data(), batch, inputs,
                           outputs, blocks, dvalues.data());
    });
  };
  for (int which = 0; which < 3; ++which) expect(run(which), "legal blocks are refused");
  expect(close(y, y_is), "blocks: forward");
  expect(close(dx, dx_is), "blocks: gradient of the inputs");
  expect(close(dvalues, dvalues_is), "blocks: gradient of the values");
  if (count == 0) return;
  const i64 victim = below(2 * count);
  const i32 largest = static_cast<i32>(victim % 2 ? columns : rows);
  for (i32 bad : {-1, largest + 1, 1 << 30, -(1 << 30)}) {
    coordinates[victim] = bad;
    for (int which = 0; which < 3; ++which)
      expect(!run(which), "a corrupt coordinate is accepted");
  }
}

// Indices of rows, and sometimes those of a dense weight, which has a kernel of its own.
template <class Index>
std::vector<Index> indices_of(i64 outputs, i64 inputs, i64* length) {
  const bool dense = below(3) == 0;
  *length = dense ? inputs : 1 + below(inputs);
  std::vector<Index> indices(outputs * *length);
  for (size_t e = 0; e < indices.size(); ++e)
    indices[e] = static_cast<Index>(dense ? e % inputs : below(inputs + 1));
  return indices;
}

template <class Index>
void pixels_once(const Table& table, i64 threads) {
  const i64 channels = 1 + below(60), outputs = 1 + below(40), batch = 1 + below(3);
  i64 length;
  auto indices = indices_of<Index>(outputs, channels, &length);
  const i64 pixels = 1 + below(300);
  const auto x = floats(batch * channels * pixels), values = floats(outputs * length);
  const auto bias = floats(outputs);
  std::vector<float> y(batch * outputs * pixels);
  std::vector<double> y_is(y.size());
  for (i64 r = 0; r < batch * outputs; ++r) {
    const i64 b = r / outputs, o = r % outputs;
    for (i64 p = 0; p < pixels; ++p) {
      double sum = bias[o];
      for (i64 e = o * length; e < (o + 1) * length; ++e)
        if (indices[e] < channels)
          sum += static_cast<double>(values[e]) *
                 x[(b * channels + indices[e]) * pixels + p];
      y_is[r * pixels + p] = std::max(sum, 0.0);
    }
  }
  auto run = [&] {
    return with_pool(threads, [&](xla::ffi::ThreadPool& pool) {
      const Rows<Index> rows = {values.data(), indices.data(), nullptr, length,
                                outputs * length, channels};
      return convolve_pixels(table, pool, x.data(), batch, pixels, rows,
                             {bias.data(), true}, y.data(), outputs);
    });
  };
  expect(run(), "a legal 1x1 convolution is refused");
  expect(close(y, y_is), "1x1 convolution");
  indices[below(outputs * length)] = static_cast<Index>(channels + 1 + below(1000));
  expect(!run(), "a corrupt index of a 1x1 convolution is accepted");
}

template <class Index>
void windows_once(const Table& table, i64 threads) {
  const i64 channels = 1 + below(20), outputs = 1 + below(20), batch = 1 + below(3);
  const i64 tall = 1 + below(7), wide = 1 + below(7);
  const i64 row_stride = 1 + below(3), column_stride = 1 + below(3);
  const i64 above = below(4), before = below(4);
  const i64 rows = 1 + below(12), columns = 1 + below(below(2) ? 12 : 80);
  // What the windows do not reach of an image, and where they reach beyond it.
  const i64 height = std::max<i64>(1, (rows - 1) * row_stride + tall - above - below(4));
  const i64 width =
      std::max<i64>(1, (columns - 1) * column_stride + wide - before - below(4));
  const Windows windows = {height, width,      rows,          columns, tall,
                           wide,   row_stride, column_stride, above,   before};
  const i64 depth = tall * wide * channels;
  i64 length;
  auto indices = indices_of<Index>(outputs, depth, &length);
  const auto x = floats(batch * channels * height * width);
  const auto values = floats(outputs * length), bias = floats(outputs);
  std::vector<float> y(batch * outputs * rows * columns);
  std::vector<double> y_is(y.size());
  for (size_t at = 0; at < y.size(); ++at) {
    const i64 plane = at / (rows * columns), o = plane % outputs;
    double sum = bias[o];
    for (i64 e = o * length; e < (o + 1) * length; ++e) {
      if (indices[e] >= depth) continue;
      const i64 tap = indices[e] / channels, c = indices[e] % channels;
      const i64 h = at / columns % rows * row_stride + tap / wide - above;
      const i64 w = at % columns * column_stride + tap % wide - before;
      if (h < 0 || w < 0 || h >= height || w >= width) continue;
      const i64 pixel = ((plane / outputs * channels + c) * height + h) * width + w;
      sum += static_cast<double>(values[e]) * x[pixel];
    }
    y_is[at] = std::max(sum, 0.0);
  }
  auto run = [&] {
    return with_pool(threads, [&](xla::ffi::ThreadPool& pool) {
      const Rows<Index> weights = {values.data(), indices.data(), nullptr, length,
                                   outputs * length, depth};
      return convolve_windows(table, pool, x.data(), batch, channels, windows, weights,
                              {bias.data(), true}, y.data(), outputs);
    });
  };
  expect(run(), "a legal convolution is refused");
  expect(close(y, y_is), "convolution");
  indices[below(outputs * length)] = static_cast<Index>(depth + 1 + below(1000));
  expect(!run(), "a corrupt index of a convolution is accepted");
}

void planes_once(const Table& table, i64 threads) {
  const i64 batch = 1 + below(3), channels = 1 + below(9), stride = 1 + below(2);
  const i64 height = 1 + below(40), width = 1 + below(60);
  const i64 rows = ceil_div(height, stride), columns = ceil_div(width, stride);
  const bool all_sides = below(2);
  const auto zeros = [&](i64 size, i64 outputs) -> i64 {
    return all_sides ? 1 : std::max<i64>(0, (outputs - 1) * stride + 3 - size) / 2;
  };
  const i64 above = zeros(height, rows), before = zeros(width, columns);
  const auto x = floats(batch * channels * height * width), taps = floats(9 * channels);
  const auto bias = floats(channels);
  std::vector<float> y(batch * channels * rows * columns);
  std::vector<double> y_is(y.size());
  for (size_t at = 0; at < y.size(); ++at) {
    const i64 plane = at / (rows * columns), h = at / columns % rows, w = at % columns;
    double sum = bias[plane % channels];
    for (i64 tap = 0; tap < 9; ++tap) {
      const i64 i = h * stride - above + tap / 3, j = w * stride - before + tap % 3;
      if (i < 0 || j < 0 || i >= height || j >= width) continue;
      sum += static_cast<double>(taps[plane % channels * 9 + tap]) *
             x[(plane * height + i) * width + j];
    }
    y_is[at] = sum;
  }
  const Plane plane = {height, width, stride, rows, columns, 1 - above, 1 - before};
  with_pool(threads, [&](xla::ffi::ThreadPool& pool) {
    filter_channels(table, pool, x.data(), batch, channels, plane, taps.data(),
                    {bias.data(), false}, y.data());
    return true;
  });
  expect(close(y, y_is), "depthwise convolution");
}

template <class Index>
void once_packed(const Table& table, i64 threads) {
  const i64 inputs = 1 + below(300), blocks = ceil_div(inputs, 32);
  const i64 count = 1 + below(9), slots = below(33);
  const i64 batch = 1 + below(below(4) ? 20 : 100);
  const i64 depth = below(2) ? 0 : 1 + below(40), entries = blocks * slots + depth;
  const auto x = floats(batch * inputs), bias = floats(count * 16);
  const auto values = floats(count * entries * 16);
  std::vector<u8> offsets(count * blocks * slots * 16);
  std::vector<Index> rest_inputs(count * depth * 16);
  std::vector<float> y(batch * count * 16);
  std::vector<double> y_is(y.size());
  for (i64 b = 0; b < batch; ++b)
    for (i64 o = 0; o < count * 16; ++o) y_is[b * count * 16 + o] = bias[o];
  const auto add = [&](i64 slice, i64 entry, i64 lane, i64 input) {
    if (input >= inputs) return;
    const double value = values[(slice * entries + entry) * 16 + lane];
    for (i64 b = 0; b < batch; ++b)
      y_is[b * count * 16 + slice * 16 + lane] += value * x[b * inputs + input];
  };
  for (size_t e = 0; e < offsets.size(); ++e) {
    offsets[e] = static_cast<u8>(below(33));
    const i64 slice = e / 16 / slots / blocks, entry = e / 16 % (blocks * slots);
    if (offsets[e] < 32) add(slice, entry, e % 16, entry / slots * 32 + offsets[e]);
  }
  for (size_t e = 0; e < rest_inputs.size(); ++e) {
    const i64 slice = e / 16 / depth, step = e / 16 % depth;
    // There is more padding behind the inputs of some slices than of others.
    const bool padding = step > (slice * 7 + 3) % depth || below(9) == 0;
    rest_inputs[e] = static_cast<Index>(padding ? inputs : below(inputs));
    add(slice, blocks * slots + step, e % 16, rest_inputs[e]);
  }
  for (double& each : y_is) each = std::max(each, 0.0);
  auto run = [&] {
    std::vector<std::thread> running;
    xla::ffi::ThreadPool pool{threads, &running};
    const Slices slices = {values.data(), entries * 16, offsets.data(),
                           count,         blocks,       slots};
    const Rest<Index> rest = {values.data() + blocks * slots * 16, entries * 16,
                              rest_inputs.data(), depth, inputs};
    const bool fine = multiply_packed(table, pool, x.data(), batch, slices, rest,
                                      {bias.data(), true}, y.data());
    for (auto& thread : running) thread.join();
    return fine;
  };
  expect(run(), "a legal packed weight is refused");
  expect(close(y, y_is), "packed forward");
  if (slots) {
    u8& victim = offsets[below(offsets.size())];
    const u8 before = victim;
    victim = static_cast<u8>(33 + below(223));
    expect(!run(), "a corrupt offset is accepted");
    victim = before;
  }
  if (depth) {
    rest_inputs[below(rest_inputs.size())] =
        static_cast<Index>(inputs + 1 + below(1000));
    expect(!run(), "a corrupt input of the rest is accepted");
  }
}

void attention_once(const Table& table, i64 threads) {
  const i64 batch = 1 + below(3), groups = 1 + below(3), rows = batch * groups;
  const i64 heads = 1 + below(4), capacity = 1 + below(200);
  const i64 size = 1 + below(150), last = below(capacity);
  const auto queries = floats(rows * heads * size);
  const auto keys = floats(rows * capacity * size), values = floats(keys.size());
  std::vector<i32> first(batch);
  for (i32& each : first) each = static_cast<i32>(below(last + 1));
  std::vector<float> y(queries.size());
  std::vector<double> y_is(y.size());
  for (i64 head = 0; head < rows * heads; ++head) {
    const i64 row = head / heads;
    double weight = 0;
    for (i64 c = first[row / groups]; c <= last; ++c) {
      const i64 at = (row * capacity + c) * size;
      double score = 0;
      for (i64 k = 0; k < size; ++k)
        score += static_cast<double>(queries[head * size + k]) * keys[at + k];
      const double share = std::exp(score / std::sqrt(size));
      weight += share;
      for (i64 k = 0; k < size; ++k) y_is[head * size + k] += share * values[at + k];
    }
    for (i64 k = 0; k < size; ++k) y_is[head * size + k] /= weight;
  }
  auto run = [&](i64 last) {
    return with_pool(threads, [&](xla::ffi::ThreadPool& pool) {
      return attend_rows(table, pool, queries.data(), heads,
                         {keys.data(), values.data(), batch, groups, capacity, size},
                         first.data(), last, y.data());
    });
  };
  expect(run(last), "a legal cache is refused");
  expect(close(y, y_is), "attention");
  expect(!run(capacity) && !run(-1), "a place behind the cache is accepted");
}

}  // namespace

int main(int count, char** arguments) {
  const int cases = count > 1 ? std::atoi(arguments[1]) : 300;
  std::vector<const Table*> tables = {&portable_table};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    tables.push_back(&avx2_table);
  if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
    tables.push_back(&avx512_table);
  for (const Table* table : tables) {
    for (int i = 0; i < cases; ++i) {
      once<u16>(*table, 1 + i % 3);
      once<i32>(*table, 1 + i % 3);
      blocks_once(*table, 1 + i % 3);
      pixels_once<u16>(*table, 1 + i % 3);
      pixels_once<i32>(*table, 1 + i % 3);
      windows_once<u16>(*table, 1 + i % 3);
      windows_once<i32>(*table, 1 + i % 3);
      planes_once(*table, 1 + i % 3);
      once_packed<u16>(*table, 1 + i % 3);
      once_packed<i32>(*table, 1 + i % 3);
      attention_once(*table, 1 + i % 3);
    }
  }
  std::printf("%zu instruction sets, %d cases each\n", tables.size(), 11 * cases);
}
