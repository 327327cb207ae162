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

#include "fan_in.h"

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
    Rows<Index> rows = {values.data(), indices.data(), nullptr, nullptr, length,
                        outputs * length, inputs};
    bool fine = false;
    if (which == 0)
      fine = multiply(table, pool, x.data(), batch, rows, {bias.data(), true}, y.data(),
                      outputs);
    if (which == 1)
      fine = sample_products(table, pool, cotangent.data(), x.data(), batch, inputs,
                             outputs, indices.data(), length, dvalues.data());
    if (which == 2)
      fine = transpose_index(indices.data(), outputs, length, inputs, starts.data(),
                             owners.data(), positions.data());
    if (which == 3) {
      rows = {values.data(), owners.data(), starts.data(), positions.data(), 0,
              outputs * length, outputs};
      fine = multiply(table, pool, cotangent.data(), batch, rows, {nullptr, false},
                      dx.data(), inputs);
    }
    for (auto& thread : running) thread.join();
    return fine;
  };
  for (int which = 0; which < 4; ++which) expect(run(which), "a legal weight is refused");
  expect(close(y, y_is), "forward");
  expect(close(dvalues, dvalues_is), "gradient of the values");
  expect(close(dx, dx_is), "gradient of the inputs");

  auto corrupt = [&](auto& array, i64 bad, std::initializer_list<int> users) {
    auto& victim = array[below(array.size())];
    const auto before = victim;
    victim = static_cast<std::decay_t<decltype(before)>>(bad);
    for (int which : users) expect(!run(which), "a corrupt index is accepted");
    victim = before;
  };
  corrupt(indices, inputs + 1 + below(1000), {0, 1, 2});
  corrupt(indices, -1, {0, 1, 2});
  // What was sorted by corrupt indices is stale.
  expect(run(2), "transpose");
  corrupt(positions, -1 - below(100), {});
  corrupt(starts, -7, {3});
  corrupt(starts, 1 << 30, {3});
  if (starts.back() > 0) {
    const i64 used = below(starts.back());
    const Index owner = owners[used];
    owners[used] = static_cast<Index>(outputs + 1 + below(99));
    expect(!run(3), "a corrupt owner is accepted");
    owners[used] = owner;
    positions[used] = static_cast<i32>(indices.size());
    expect(!run(3), "a corrupt position is accepted");
  }
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
    }
  }
  std::printf("%zu instruction sets, %d cases each\n", tables.size(), 2 * cases);
}
