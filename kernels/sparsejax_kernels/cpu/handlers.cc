// What XLA calls: checks shapes, picks the instruction set and the type of the indices.
#include <algorithm>
#include <vector>

#include "attention.h"
#include "blocks.h"
#include "convolutions.h"
#include "fan_in.h"
#include "packed.h"
#include "xla/ffi/api/ffi.h"

namespace sparsejax_kernels {
namespace {

namespace ffi = xla::ffi;
using Floats = ffi::Buffer<ffi::F32>;
using FloatResult = ffi::ResultBuffer<ffi::F32>;
using Bytes = ffi::Buffer<ffi::U8>;
using Integers = ffi::Buffer<ffi::S32>;
using IntegerResult = ffi::ResultBuffer<ffi::S32>;

// 0 takes the best that this processor has; 2 to 4 are x86-64-v2 to v4.
i64 level_here(i64 level) {
#if defined(SPARSEJAX_KERNELS_X86)
  static const i64 best = [] {
    __builtin_cpu_init();
    const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi2");
    const bool v4 =
        v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    return v4 ? 4 : v3 ? 3 : 2;
  }();
  return level == 0 ? best : std::min(level, best);
#else
  return 2;
#endif
}

const Table& table_of(i64 level) {
#if defined(SPARSEJAX_KERNELS_X86)
  const i64 chosen = level_here(level);
  if (chosen >= 4) return avx512_table;
  if (chosen == 3) return avx2_table;
#endif
  return portable_table;
}

ffi::Error out_of_range() {
  return ffi::Error::InvalidArgument(
      "an index of a compressed weight is out of range; build the weight by "
      "fromdense(weights, mask), or check it where it is concrete");
}

ffi::Error wrong_shapes() {
  return ffi::Error::InvalidArgument(
      "shapes or types of a compressed weight and its operands do not fit");
}

template <class Body>
ffi::Error by_index_type(ffi::DataType type, Body&& body) {
  if (type == ffi::U16) return body(u16{});
  if (type == ffi::S32) return body(i32{});
  return wrong_shapes();
}

bool is_matrix(ffi::Span<const int64_t> shape, i64 rows, i64 columns) {
  return shape.size() == 2 && shape[0] == rows && shape[1] == columns;
}

ffi::Error forward(ffi::ThreadPool pool, i64 level, bool relu, Floats x, Floats values,
                   ffi::AnyBuffer indices, Floats bias, FloatResult y) {
  if (x.dimensions().size() != 2 || values.dimensions().size() != 2)
    return wrong_shapes();
  const i64 batch = x.dimensions()[0], inputs = x.dimensions()[1];
  const i64 outputs = values.dimensions()[0], length = values.dimensions()[1];
  const i64 biases = bias.element_count();
  if (!is_matrix(indices.dimensions(), outputs, length) ||
      !is_matrix(y->dimensions(), batch, outputs) || (biases && biases != outputs))
    return wrong_shapes();
  return by_index_type(indices.element_type(), [&](auto type) {
    using Index = decltype(type);
    const Rows<Index> rows = {values.typed_data(),
                              reinterpret_cast<const Index*>(indices.untyped_data()),
                              nullptr,
                              length,
                              outputs * length,
                              inputs};
    const Epilogue epilogue = {biases ? bias.typed_data() : nullptr, relu};
    return multiply(table_of(level), pool, x.typed_data(), batch, rows, epilogue,
                    y->typed_data(), outputs)
               ? ffi::Error::Success()
               : out_of_range();
  });
}

template <class Owner>
TransposedIndex<Owner> transposed_index(Integers starts, ffi::AnyBuffer owners,
                                        Integers positions) {
  return {starts.typed_data(), reinterpret_cast<const Owner*>(owners.untyped_data()),
          positions.typed_data(), static_cast<i64>(starts.element_count()) - 1,
          static_cast<i64>(owners.element_count())};
}

bool fits(Integers starts, ffi::AnyBuffer owners, Integers positions, i64 inputs,
          i64 entries) {
  return static_cast<i64>(starts.element_count()) == inputs + 1 &&
         static_cast<i64>(owners.element_count()) == entries &&
         static_cast<i64>(positions.element_count()) == entries;
}

ffi::Error input_gradient(ffi::ThreadPool pool, i64 level, Floats cotangent,
                          Floats values, Integers starts, ffi::AnyBuffer owners,
                          Integers positions, FloatResult gradient) {
  if (cotangent.dimensions().size() != 2 || gradient->dimensions().size() != 2)
    return wrong_shapes();
  const i64 batch = cotangent.dimensions()[0], outputs = cotangent.dimensions()[1];
  const i64 inputs = gradient->dimensions()[1];
  if (gradient->dimensions()[0] != batch ||
      !fits(starts, owners, positions, inputs, values.element_count()))
    return wrong_shapes();
  return by_index_type(owners.element_type(), [&](auto type) {
    const auto index = transposed_index<decltype(type)>(starts, owners, positions);
    return multiply_transposed(table_of(level), pool, cotangent.typed_data(), batch,
                               outputs, values.typed_data(), index,
                               gradient->typed_data())
               ? ffi::Error::Success()
               : out_of_range();
  });
}

ffi::Error value_gradient(ffi::ThreadPool pool, i64 level, Floats cotangent, Floats x,
                          ffi::AnyBuffer indices, FloatResult gradient) {
  if (cotangent.dimensions().size() != 2 || x.dimensions().size() != 2 ||
      indices.dimensions().size() != 2)
    return wrong_shapes();
  const i64 batch = x.dimensions()[0], inputs = x.dimensions()[1];
  const i64 outputs = indices.dimensions()[0], length = indices.dimensions()[1];
  if (!is_matrix(cotangent.dimensions(), batch, outputs) ||
      !is_matrix(gradient->dimensions(), outputs, length))
    return wrong_shapes();
  return by_index_type(indices.element_type(), [&](auto type) {
    const TransposedIndex<u16>* none = nullptr;
    return gradients(table_of(level), pool, cotangent.typed_data(), x.typed_data(),
                     batch, inputs, outputs, nullptr,
                     reinterpret_cast<const decltype(type)*>(indices.untyped_data()),
                     length, none, nullptr, gradient->typed_data())
               ? ffi::Error::Success()
               : out_of_range();
  });
}

ffi::Error both_gradients(ffi::ThreadPool pool, i64 level, Floats cotangent, Floats x,
                          Floats values, ffi::AnyBuffer indices, Integers starts,
                          ffi::AnyBuffer owners, Integers positions, FloatResult to_x,
                          FloatResult to_values) {
  if (cotangent.dimensions().size() != 2 || x.dimensions().size() != 2 ||
      indices.dimensions().size() != 2)
    return wrong_shapes();
  const i64 batch = x.dimensions()[0], inputs = x.dimensions()[1];
  const i64 outputs = indices.dimensions()[0], length = indices.dimensions()[1];
  if (!is_matrix(cotangent.dimensions(), batch, outputs) ||
      !is_matrix(values.dimensions(), outputs, length) ||
      !is_matrix(to_x->dimensions(), batch, inputs) ||
      !is_matrix(to_values->dimensions(), outputs, length) ||
      !fits(starts, owners, positions, inputs, outputs * length))
    return wrong_shapes();
  return by_index_type(indices.element_type(), [&](auto type) {
    const auto* reads = reinterpret_cast<const decltype(type)*>(indices.untyped_data());
    return by_index_type(owners.element_type(), [&](auto owner) {
      const auto index = transposed_index<decltype(owner)>(starts, owners, positions);
      return gradients(table_of(level), pool, cotangent.typed_data(), x.typed_data(),
                       batch, inputs, outputs, values.typed_data(), reads, length,
                       &index, to_x->typed_data(), to_values->typed_data())
                 ? ffi::Error::Success()
                 : out_of_range();
    });
  });
}

ffi::Error packed(ffi::ThreadPool pool, i64 level, bool relu, Floats x, Floats values,
                  Bytes offsets, ffi::AnyBuffer rest_inputs, Floats bias,
                  FloatResult y) {
  const auto shape = values.dimensions(), places = offsets.dimensions();
  const auto read = rest_inputs.dimensions();
  if (x.dimensions().size() != 2 || shape.size() != 3 || shape[2] != 16 ||
      places.size() != 4 || places[0] != shape[0] || places[3] != 16 ||
      read.size() != 3 || read[0] != shape[0] || read[2] != 16 ||
      shape[1] != places[1] * places[2] + read[1])
    return wrong_shapes();
  const i64 batch = x.dimensions()[0], inputs = x.dimensions()[1];
  const i64 outputs = shape[0] * 16, biases = bias.element_count();
  if (places[1] != ceil_div(inputs, 32) ||
      !is_matrix(y->dimensions(), batch, outputs) || (biases && biases != outputs))
    return wrong_shapes();
  const i64 stride = shape[1] * 16;
  const Slices slices = {values.typed_data(), stride, offsets.typed_data(),
                         shape[0], places[1], places[2]};
  const Epilogue epilogue = {biases ? bias.typed_data() : nullptr, relu};
  return by_index_type(rest_inputs.element_type(), [&](auto type) {
    using Index = decltype(type);
    const Rest<Index> rest = {values.typed_data() + places[1] * places[2] * 16, stride,
                              reinterpret_cast<const Index*>(rest_inputs.untyped_data()),
                              read[1], inputs};
    return multiply_packed(table_of(level), pool, x.typed_data(), batch, slices, rest,
                           epilogue, y->typed_data())
               ? ffi::Error::Success()
               : out_of_range();
  });
}

ffi::Error attention(ffi::ThreadPool pool, i64 level, Floats queries, Floats keys,
                     Floats values, Integers first, Integers last, FloatResult y) {
  const auto shape = queries.dimensions(), held = keys.dimensions();
  const auto too = values.dimensions(), result = y->dimensions();
  if (shape.size() != 4 || held.size() != 4 || held[0] != shape[0] ||
      held[1] != shape[1] || held[3] != shape[3] ||
      !std::equal(held.begin(), held.end(), too.begin(), too.end()) ||
      !std::equal(shape.begin(), shape.end(), result.begin(), result.end()) ||
      static_cast<i64>(first.element_count()) != shape[0] || last.element_count() != 1)
    return wrong_shapes();
  const Caches caches = {keys.typed_data(), values.typed_data(), shape[0], shape[1],
                         held[2], shape[3]};
  return attend_rows(table_of(level), pool, queries.typed_data(), shape[2], caches,
                     first.typed_data(), *last.typed_data(), y->typed_data())
             ? ffi::Error::Success()
             : ffi::Error::InvalidArgument(
                   "the last token of a cache is not in it; make a larger one");
}

ffi::Error transpose(ffi::AnyBuffer indices, IntegerResult starts,
                     ffi::Result<ffi::AnyBuffer> outputs_of, IntegerResult positions) {
  if (indices.dimensions().size() != 2) return wrong_shapes();
  const i64 outputs = indices.dimensions()[0], length = indices.dimensions()[1];
  const i64 inputs = static_cast<i64>(starts->element_count()) - 1;
  if (inputs < 0 || static_cast<i64>(positions->element_count()) != outputs * length ||
      static_cast<i64>(outputs_of->element_count()) != outputs * length)
    return wrong_shapes();
  return by_index_type(indices.element_type(), [&](auto index) {
    using Index = decltype(index);
    return by_index_type(outputs_of->element_type(), [&](auto row) {
      using Row = decltype(row);
      return transpose_index(reinterpret_cast<const Index*>(indices.untyped_data()),
                             outputs, length, inputs, starts->typed_data(),
                             reinterpret_cast<Row*>(outputs_of->untyped_data()),
                             positions->typed_data())
                 ? ffi::Error::Success()
                 : out_of_range();
    });
  });
}

bool are_blocks(ffi::Span<const int64_t> values, Integers coordinates) {
  return values.size() == 3 && values[1] > 0 && values[2] > 0 &&
         is_matrix(coordinates.dimensions(), values[0], 2);
}

ffi::Error block_forward(ffi::ThreadPool pool, i64 level, bool relu, bool transposed,
                         Floats x, Floats values, Integers coordinates, Floats bias,
                         FloatResult y) {
  if (x.dimensions().size() != 2 || y->dimensions().size() != 2 ||
      !are_blocks(values.dimensions(), coordinates))
    return wrong_shapes();
  const i64 batch = x.dimensions()[0], inputs = x.dimensions()[1];
  const i64 outputs = y->dimensions()[1], biases = bias.element_count();
  if (y->dimensions()[0] != batch || (biases && biases != outputs))
    return wrong_shapes();
  const auto shape = values.dimensions();
  const Blocks blocks = {values.typed_data(), coordinates.typed_data(), shape[0],
                         shape[1], shape[2]};
  const Epilogue epilogue = {biases ? bias.typed_data() : nullptr, relu};
  return multiply_blocks(table_of(level), pool, x.typed_data(), batch, inputs, blocks,
                         transposed, epilogue, y->typed_data(), outputs)
             ? ffi::Error::Success()
             : out_of_range();
}

ffi::Error block_value_gradient(ffi::ThreadPool pool, i64 level, Floats cotangent,
                                Floats x, Integers coordinates, FloatResult gradient) {
  if (cotangent.dimensions().size() != 2 || x.dimensions().size() != 2 ||
      cotangent.dimensions()[0] != x.dimensions()[0] ||
      !are_blocks(gradient->dimensions(), coordinates))
    return wrong_shapes();
  const auto shape = gradient->dimensions();
  const Blocks blocks = {nullptr, coordinates.typed_data(), shape[0], shape[1],
                         shape[2]};
  return sample_blocks(table_of(level), pool, cotangent.typed_data(), x.typed_data(),
                       x.dimensions()[0], x.dimensions()[1], cotangent.dimensions()[1],
                       blocks, gradient->typed_data())
             ? ffi::Error::Success()
             : out_of_range();
}

ffi::Error pointwise_forward(ffi::ThreadPool pool, i64 level, bool relu, Floats x,
                             Floats values, ffi::AnyBuffer indices, Floats bias,
                             FloatResult y) {
  if (x.dimensions().size() != 3 || y->dimensions().size() != 3 ||
      values.dimensions().size() != 2)
    return wrong_shapes();
  const i64 batch = x.dimensions()[0], channels = x.dimensions()[1];
  const i64 pixels = x.dimensions()[2], biases = bias.element_count();
  const i64 outputs = values.dimensions()[0], length = values.dimensions()[1];
  if (!is_matrix(indices.dimensions(), outputs, length) ||
      y->dimensions()[0] != batch || y->dimensions()[1] != outputs ||
      y->dimensions()[2] != pixels || (biases && biases != outputs))
    return wrong_shapes();
  return by_index_type(indices.element_type(), [&](auto type) {
    using Index = decltype(type);
    const Rows<Index> rows = {values.typed_data(),
                              reinterpret_cast<const Index*>(indices.untyped_data()),
                              nullptr,
                              length,
                              outputs * length,
                              channels};
    const Epilogue epilogue = {biases ? bias.typed_data() : nullptr, relu};
    return convolve_pixels(table_of(level), pool, x.typed_data(), batch, pixels, rows,
                           epilogue, y->typed_data(), outputs)
               ? ffi::Error::Success()
               : out_of_range();
  });
}

// Images, whose memory is channel-first however their axes are ordered.
struct Images {
  i64 batch;
  i64 channels;
  i64 height;
  i64 width;
};

Images images(ffi::Span<const int64_t> shape, bool channels_last) {
  if (channels_last) return {shape[0], shape[3], shape[1], shape[2]};
  return {shape[0], shape[1], shape[2], shape[3]};
}

ffi::Error convolution_forward(ffi::ThreadPool pool, i64 level, bool relu, i64 tall,
                               i64 wide, i64 row_stride, i64 column_stride, i64 above,
                               i64 before, Floats x, Floats values,
                               ffi::AnyBuffer indices, Floats bias, FloatResult y) {
  if (x.dimensions().size() != 4 || y->dimensions().size() != 4 ||
      values.dimensions().size() != 2)
    return wrong_shapes();
  const Images from = images(x.dimensions(), true), to = images(y->dimensions(), true);
  const i64 biases = bias.element_count();
  const i64 outputs = values.dimensions()[0], length = values.dimensions()[1];
  const i64 smallest = std::min({tall, wide, row_stride, column_stride});
  if (!is_matrix(indices.dimensions(), outputs, length) || to.batch != from.batch ||
      to.channels != outputs || (biases && biases != outputs) || smallest < 1 ||
      std::min(above, before) < 0)
    return wrong_shapes();
  const Windows windows = {from.height, from.width, to.height,  to.width, tall,
                           wide,        row_stride, column_stride, above, before};
  const bool one = tall * wide * row_stride * column_stride == 1 &&
                   from.height == to.height && from.width == to.width &&
                   above + before == 0;
  return by_index_type(indices.element_type(), [&](auto type) {
    using Index = decltype(type);
    const Rows<Index> rows = {values.typed_data(),
                              reinterpret_cast<const Index*>(indices.untyped_data()),
                              nullptr,
                              length,
                              outputs * length,
                              tall * wide * from.channels};
    const Epilogue epilogue = {biases ? bias.typed_data() : nullptr, relu};
    const Table& table = table_of(level);
    const bool fine =
        one ? convolve_pixels(table, pool, x.typed_data(), from.batch,
                              from.height * from.width, rows, epilogue, y->typed_data(),
                              outputs)
            : convolve_windows(table, pool, x.typed_data(), from.batch, from.channels,
                               windows, rows, epilogue, y->typed_data(), outputs);
    return fine ? ffi::Error::Success() : out_of_range();
  });
}

ffi::Error depthwise_forward(ffi::ThreadPool pool, i64 level, bool relu,
                             bool channels_last, i64 stride, i64 above, i64 before,
                             Floats x, Floats taps, Floats bias, FloatResult y) {
  if (x.dimensions().size() != 4 || y->dimensions().size() != 4 ||
      (stride != 1 && stride != 2) || (above & ~1) || (before & ~1))
    return wrong_shapes();
  const auto [batch, channels, height, width] = images(x.dimensions(), channels_last);
  const Images result = images(y->dimensions(), channels_last);
  const i64 biases = bias.element_count();
  const Plane plane = {height,       width,     stride,    result.height,
                       result.width, 1 - above, 1 - before};
  const auto fits = [&](i64 size, i64 outputs, i64 skip) {
    return outputs == ceil_div(size, stride) && (outputs - 1) * stride + skip < size;
  };
  if (result.batch != batch || result.channels != channels ||
      !fits(height, plane.rows, plane.skip_rows) ||
      !fits(width, plane.columns, plane.skip_columns) ||
      static_cast<i64>(taps.element_count()) != 9 * channels ||
      (biases && biases != channels))
    return wrong_shapes();
  const Epilogue epilogue = {biases ? bias.typed_data() : nullptr, relu};
  filter_channels(table_of(level), pool, x.typed_data(), batch, channels, plane,
                  taps.typed_data(), epilogue, y->typed_data());
  return ffi::Error::Success();
}

}  // namespace
}  // namespace sparsejax_kernels

extern "C" __attribute__((visibility("default"))) const char*
sparsejax_kernels_built_with() {
  return SPARSEJAX_KERNELS_JAXLIB;
}

extern "C" __attribute__((visibility("default"))) int64_t sparsejax_kernels_level_here(
    int64_t level) {
  return sparsejax_kernels::level_here(level);
}

using xla::ffi::AnyBuffer;
using xla::ffi::Buffer;
using xla::ffi::Ffi;
using xla::ffi::ThreadPool;
constexpr auto kFloat = xla::ffi::F32;
constexpr auto kInteger = xla::ffi::S32;

XLA_FFI_DEFINE_HANDLER_SYMBOL(fan_in_forward, sparsejax_kernels::forward,
                              Ffi::Bind()
                                  .Ctx<ThreadPool>()
                                  .Attr<int64_t>("level")
                                  .Attr<bool>("relu")
                                  .Arg<Buffer<kFloat>>()
                                  .Arg<Buffer<kFloat>>()
                                  .Arg<AnyBuffer>()
                                  .Arg<Buffer<kFloat>>()
                                  .Ret<Buffer<kFloat>>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(fan_in_input_gradient, sparsejax_kernels::input_gradient,
                              Ffi::Bind()
                                  .Ctx<ThreadPool>()
                                  .Attr<int64_t>("level")
                                  .Arg<Buffer<kFloat>>()
                                  .Arg<Buffer<kFloat>>()
                                  .Arg<Buffer<kInteger>>()
                                  .Arg<AnyBuffer>()
                                  .Arg<Buffer<kInteger>>()
                                  .Ret<Buffer<kFloat>>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(fan_in_value_gradient, sparsejax_kernels::value_gradient,
                              Ffi::Bind()
                                  .Ctx<ThreadPool>()
                                  .Attr<int64_t>("level")
                                  .Arg<Buffer<kFloat>>()
                                  .Arg<Buffer<kFloat>>()
                                  .Arg<AnyBuffer>()
                                  .Ret<Buffer<kFloat>>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(fan_in_gradients, sparsejax_kernels::both_gradients,
                              Ffi::Bind()
                                  .Ctx<ThreadPool>()
                                  .Attr<int64_t>("level")
                                  .Arg<Buffer<kFloat>>()
                                  .Arg<Buffer<kFloat>>()
                                  .Arg<Buffer<kFloat>>()
                                  .Arg<AnyBuffer>()
                                  .Arg<Buffer<kInteger>>()
                                  .Arg<AnyBuffer>()
                                  .Arg<Buffer<kInteger>>()
                                  .Ret<Buffer<kFloat>>()
                                  .Ret<Buffer<kFloat>>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(fan_in_transpose, sparsejax_kernels::transpose,
                              Ffi::Bind()
                                  .Arg<AnyBuffer>()
                                  .Ret<Buffer<kInteger>>()
                                  .Ret<AnyBuffer>()
                                  .Ret<Buffer<kInteger>>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(packed_forward, sparsejax_kernels::packed,
                              Ffi::Bind()
                                  .Ctx<ThreadPool>()
                                  .Attr<int64_t>("level")
                                  .Attr<bool>("relu")
                                  .Arg<Buffer<kFloat>>()
                                  .Arg<Buffer<kFloat>>()
                                  .Arg<Buffer<xla::ffi::U8>>()
                                  .Arg<AnyBuffer>()
                                  .Arg<Buffer<kFloat>>()
                                  .Ret<Buffer<kFloat>>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(cached_attention, sparsejax_kernels::attention,
                              Ffi::Bind()
                                  .Ctx<ThreadPool>()
                                  .Attr<int64_t>("level")
                                  .Arg<Buffer<kFloat>>()
                                  .Arg<Buffer<kFloat>>()
                                  .Arg<Buffer<kFloat>>()
                                  .Arg<Buffer<kInteger>>()
                                  .Arg<Buffer<kInteger>>()
                                  .Ret<Buffer<kFloat>>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(block_forward, sparsejax_kernels::block_forward,
                              Ffi::Bind()
                                  .Ctx<ThreadPool>()
                                  .Attr<int64_t>("level")
                                  .Attr<bool>("relu")
                                  .Attr<bool>("transposed")
                                  .Arg<Buffer<kFloat>>()
                                  .Arg<Buffer<kFloat>>()
                                  .Arg<Buffer<kInteger>>()
                                  .Arg<Buffer<kFloat>>()
                                  .Ret<Buffer<kFloat>>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(block_value_gradient,
                              sparsejax_kernels::block_value_gradient,
                              Ffi::Bind()
                                  .Ctx<ThreadPool>()
                                  .Attr<int64_t>("level")
                                  .Arg<Buffer<kFloat>>()
                                  .Arg<Buffer<kFloat>>()
                                  .Arg<Buffer<kInteger>>()
                                  .Ret<Buffer<kFloat>>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(pointwise_forward, sparsejax_kernels::pointwise_forward,
                              Ffi::Bind()
                                  .Ctx<ThreadPool>()
                                  .Attr<int64_t>("level")
                                  .Attr<bool>("relu")
                                  .Arg<Buffer<kFloat>>()
                                  .Arg<Buffer<kFloat>>()
                                  .Arg<AnyBuffer>()
                                  .Arg<Buffer<kFloat>>()
                                  .Ret<Buffer<kFloat>>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(convolution_forward, sparsejax_kernels::convolution_forward,
                              Ffi::Bind()
                                  .Ctx<ThreadPool>()
                                  .Attr<int64_t>("level")
                                  .Attr<bool>("relu")
                                  .Attr<int64_t>("tall")
                                  .Attr<int64_t>("wide")
                                  .Attr<int64_t>("row_stride")
                                  .Attr<int64_t>("column_stride")
                                  .Attr<int64_t>("above")
                                  .Attr<int64_t>("before")
                                  .Arg<Buffer<kFloat>>()
                                  .Arg<Buffer<kFloat>>()
                                  .Arg<AnyBuffer>()
                                  .Arg<Buffer<kFloat>>()
                                  .Ret<Buffer<kFloat>>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(depthwise_forward, sparsejax_kernels::depthwise_forward,
                              Ffi::Bind()
                                  .Ctx<ThreadPool>()
                                  .Attr<int64_t>("level")
                                  .Attr<bool>("relu")
                                  .Attr<bool>("channels_last")
                                  .Attr<int64_t>("stride")
                                  .Attr<int64_t>("above")
                                  .Attr<int64_t>("before")
                                  .Arg<Buffer<kFloat>>()
                                  .Arg<Buffer<kFloat>>()
                                  .Arg<Buffer<kFloat>>()
                                  .Ret<Buffer<kFloat>>());
