// Convolutions of channel-first pixels: how the work is cut up.
#ifndef SPARSEJAX_KERNELS_CONVOLUTIONS_H_
#define SPARSEJAX_KERNELS_CONVOLUTIONS_H_

#include <cmath>
#include <cstring>

#include "fan_in.h"

namespace sparsejax_kernels {

// A few pixels that fill no vector have a narrow panel of their own.
constexpr i64 kTail = 4;

// Into how many tiles of pixels, and parts of the outputs, an image is best cut: the
// fewest vectors summed and packed by the busiest thread. Measured: reading a weight
// takes as long as summing a vector, and panels that are larger than the nearest cache
// take longer, the larger they are.
struct Cut {
  i64 tiles;
  i64 parts;
};

inline Cut cheapest_cut(i64 vectors, i64 most, i64 lanes, i64 batch, i64 threads,
                        i64 depth, i64 entries) {
  Cut best = {vectors, 1};
  double least = -1;
  for (i64 tiles = ceil_div(vectors, most); tiles <= vectors; ++tiles) {
    const i64 parts = std::max<i64>(1, ceil_div(threads, tiles * batch));
    const double width = ceil_div(vectors, tiles);
    const double size = depth * width * lanes * sizeof(float) / 49152;
    const double slower = size > 1 ? 1 + 0.3 * std::log2(size) : 1;
    const double task = 2 * depth * width + entries * (width + 1) * slower / parts;
    const double cost = ceil_div(tiles * parts * batch, threads) * task;
    if (least < 0 || cost < least) {
      least = cost;
      best = {tiles, parts};
    }
  }
  return best;
}

// Cuts images into tiles of pixels, whose panels hold depth rows and one of zeros, and
// the outputs into parts. pack(image, first pixel, how many, width, panel) fills such
// rows; sum(panel, vectors, image, first pixel, how many, first output, last output).
template <class Pack, class Sum>
void tile_pixels(const Table& table, xla::ffi::ThreadPool& pool, i64 batch, i64 pixels,
                 i64 depth, i64 entries, i64 outputs, Pack&& pack, Sum&& sum) {
  const i64 lanes = table.lanes, rest = pixels % lanes;
  const bool tail = lanes > kTail && pixels > lanes && rest && rest <= kTail;
  const i64 vectors = tail ? pixels / lanes : ceil_div(pixels, lanes);
  i64 threads = std::max<i64>(1, pool.num_threads());
  if (entries * pixels * batch < kWorthAThread) threads = 1;
  const auto [tiles, parts] = cheapest_cut(vectors, table.most_vectors, lanes, batch,
                                           threads, depth, entries);
  parallel_for(pool, batch * tiles * parts, threads, [&, tiles = tiles,
                                                      parts = parts](i64 task) {
    const i64 part = task % parts, tile = task / parts % tiles;
    const i64 image = task / parts / tiles;
    const i64 begin = vectors * tile / tiles, end = vectors * (tile + 1) / tiles;
    const i64 first = begin * lanes, width = (end - begin) * lanes;
    const i64 size = tile == tiles - 1 ? pixels - first : width;
    float* panel = scratch(0, (depth + 1) * (width + kTail));
    const auto fill = [&](i64 from, i64 count, i64 width, float* rows) {
      pack(image, from, count, width, rows);
      std::memset(rows + depth * width, 0, width * sizeof(float));
    };
    fill(first, std::min(size, width), width, panel);
    if (size > width)
      fill(first + width, size - width, kTail, panel + (depth + 1) * width);
    sum(panel, static_cast<int>(end - begin), image, first, size, outputs * part / parts,
        outputs * (part + 1) / parts);
  });
}

// Whether every row reads all inputs in their order, as those of a dense weight do.
template <class Index>
bool reads_all(const Rows<Index>& rows) {
  if (rows.length != rows.limit) return false;
  i64 unlike = 0;
  for (i64 first = 0; first < rows.entries; first += rows.length)
    for (i64 k = 0; k < rows.length; ++k)
      unlike += rows.indices[first + k] != static_cast<Index>(k);
  return unlike == 0;
}

// Sums of a dense weight: outputs that read the same pixels share what they load.
template <class Index>
void sum_densely(const Table& table, const float* panel, i64 width, i64 pixels,
                 const Rows<Index>& rows, Epilogue epilogue, float* y, i64 stride,
                 i64 first, i64 last) {
  const Term term = {0, 0};
  const i64 depth = rows.length, groups = ceil_div(last - first, table.tallest);
  // pack_tile writes whole vectors.
  float* weights = scratch(2, depth * table.tallest + table.lanes);
  for (i64 group = 0; group < groups; ++group) {
    const i64 begin = first + (last - first) * group / groups;
    const i64 height = first + (last - first) * (group + 1) / groups - begin;
    table.pack_tile(rows.values + begin * depth, height, depth, 0, depth, weights);
    Products products = {&term,   1,     depth,  weights,
                         height,  panel, width,  std::min(width, pixels),
                         epilogue, true, y + begin * stride, stride};
    if (epilogue.bias) products.epilogue.bias = epilogue.bias + begin;
    table.sum_tile(products, height);
    if (pixels <= width) continue;
    products.right = panel + (depth + 1) * width;
    products.right_stride = kTail;
    products.columns = pixels - width;
    products.y += width;
    table.sum_tile(products, height);
  }
}

// What tile_pixels calls to sum up a panel, for y[batch, outputs, pixels]; fine becomes
// false where an index is out of range.
template <class Index>
auto summing(const Table& table, const Rows<Index>& rows, Epilogue epilogue, float* y,
             i64 outputs, i64 pixels, std::atomic<bool>& fine) {
  const bool dense = reads_all(rows);
  return [=, &table, &fine](const float* panel, int vectors, i64 image, i64 at,
                            i64 size, i64 first, i64 last) {
    float* to = y + image * outputs * pixels + at;
    if (dense) {
      sum_densely(table, panel, vectors * table.lanes, size, rows, epilogue, to, pixels,
                  first, last);
    } else if (!kernels_of<Index>(table).pixels(panel, vectors, rows, epilogue, size, to,
                                                pixels, first, last)) {
      fine = false;
    }
  };
}

// y[batch, outputs, pixels] = sums over rows of x[batch, rows.limit, pixels].
template <class Index>
bool convolve_pixels(const Table& table, xla::ffi::ThreadPool& pool, const float* x,
                     i64 batch, i64 pixels, const Rows<Index>& rows, Epilogue epilogue,
                     float* y, i64 outputs) {
  const i64 channels = rows.limit;
  if (batch * pixels == 0) return true;
  std::atomic<bool> fine{true};
  tile_pixels(
      table, pool, batch, pixels, channels, rows.entries, outputs,
      [&](i64 image, i64 first, i64 size, i64 width, float* panel) {
        table.pack_pixels(x + image * channels * pixels + first, pixels, channels, size,
                          width, panel);
      },
      summing(table, rows, epilogue, y, outputs, pixels, fine));
  return fine;
}

// y[batch, outputs, rows, columns] = sums over the windows of x[batch, channels, height,
// width], whose inputs are numbered by tap first, then by channel.
template <class Index>
bool convolve_windows(const Table& table, xla::ffi::ThreadPool& pool, const float* x,
                      i64 batch, i64 channels, const Windows& windows,
                      const Rows<Index>& rows, Epilogue epilogue, float* y, i64 outputs) {
  const i64 pixels = windows.rows * windows.columns;
  if (batch * pixels == 0) return true;
  std::atomic<bool> fine{true};
  tile_pixels(
      table, pool, batch, pixels, rows.limit, rows.entries, outputs,
      [&](i64 image, i64 first, i64 size, i64 width, float* panel) {
        const i64 lines = (first + size - 1) / windows.columns - first / windows.columns;
        const i64 length = (windows.columns - 1) * windows.column_stride + windows.wide;
        float* bordered =
            scratch(1, (lines * windows.row_stride + windows.tall) * length + kBehind);
        table.pack_windows(x + image * channels * windows.height * windows.width, windows,
                           channels, first, size, width, bordered, panel);
      },
      summing(table, rows, epilogue, y, outputs, pixels, fine));
  return fine;
}

// y[batch, channels, rows, columns]: each channel by its own nine taps.
inline void filter_channels(const Table& table, xla::ffi::ThreadPool& pool,
                            const float* x, i64 batch, i64 channels, const Plane& plane,
                            const float* taps, Epilogue epilogue, float* y) {
  const i64 size = plane.height * plane.width, result = plane.rows * plane.columns;
  const i64 planes = batch * channels;
  i64 threads = std::max<i64>(1, pool.num_threads());
  if (9 * planes * result < kWorthAThread) threads = 1;
  const i64 parts = std::min(planes, threads == 1 ? 1 : 4 * threads);
  parallel_for(pool, parts, threads, [&](i64 part) {
    for (i64 p = planes * part / parts; p < planes * (part + 1) / parts; ++p) {
      const i64 channel = p % channels;
      table.filter_plane(x + p * size, plane, taps + 9 * channel,
                         epilogue.bias ? epilogue.bias[channel] : 0.f, epilogue.relu,
                         y + p * result);
    }
  });
}

}  // namespace sparsejax_kernels

#endif  // SPARSEJAX_KERNELS_CONVOLUTIONS_H_
