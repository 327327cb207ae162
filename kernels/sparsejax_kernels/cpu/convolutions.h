// Convolutions of channel-first pixels: how the work is cut up.
#ifndef SPARSEJAX_KERNELS_CONVOLUTIONS_H_
#define SPARSEJAX_KERNELS_CONVOLUTIONS_H_

#include <cstring>

#include "fan_in.h"

namespace sparsejax_kernels {

// Floats of a panel, at most: it has to stay in a core's own cache.
constexpr i64 kMostOfPanel = 192 * 1024;

// Cuts the pixels of images into tiles, whose panels hold depth rows, and where these are
// too few for all threads their outputs into parts; body(image, first pixel, how many of
// them, vectors, first output, last output).
template <class Body>
void tile_pixels(const Table& table, xla::ffi::ThreadPool& pool, i64 batch, i64 pixels,
                 i64 depth, i64 work, i64 outputs, Body&& body) {
  const i64 lanes = table.lanes, vectors = ceil_div(pixels, lanes);
  i64 threads = std::max<i64>(1, pool.num_threads());
  if (work < kWorthAThread) threads = 1;
  const i64 most = std::clamp<i64>(kMostOfPanel / (depth * lanes), 1, table.most_vectors);
  i64 tiles = ceil_div(vectors, most);
  if (tiles * batch < threads)
    tiles = std::min(vectors, ceil_div(threads, batch));
  const i64 parts = tiles * batch < threads ? ceil_div(threads, tiles * batch) : 1;
  parallel_for(pool, batch * tiles * parts, threads, [&](i64 task) {
    const i64 part = task % parts, tile = task / parts % tiles;
    const i64 begin = vectors * tile / tiles, end = vectors * (tile + 1) / tiles;
    const i64 first = begin * lanes;
    body(task / parts / tiles, first, std::min((end - begin) * lanes, pixels - first),
         end - begin, outputs * part / parts, outputs * (part + 1) / parts);
  });
}

// y[batch, outputs, pixels] = sums over rows of x[batch, rows.limit, pixels].
template <class Index>
bool convolve_pixels(const Table& table, xla::ffi::ThreadPool& pool, const float* x,
                     i64 batch, i64 pixels, const Rows<Index>& rows, Epilogue epilogue,
                     float* y, i64 outputs) {
  const i64 channels = rows.limit;
  if (batch * pixels == 0) return true;
  std::atomic<bool> fine{true};
  tile_pixels(table, pool, batch, pixels, channels, rows.entries * pixels * batch,
              outputs, [&](i64 image, i64 at, i64 size, i64 vectors, i64 first, i64 last) {
    const i64 width = vectors * table.lanes;
    float* panel = scratch(0, (channels + 1) * width);
    table.pack_pixels(x + image * channels * pixels + at, pixels, channels, size, width,
                      panel);
    std::memset(panel + channels * width, 0, width * sizeof(float));
    if (!kernels_of<Index>(table).pixels(panel, static_cast<int>(vectors), rows, epilogue,
                                         size, y + image * outputs * pixels + at, pixels,
                                         first, last))
      fine = false;
  });
  return fine;
}

// y[batch, outputs, rows, columns] = sums over the windows of x[batch, channels, height,
// width], whose inputs are numbered by tap first, then by channel.
template <class Index>
bool convolve_windows(const Table& table, xla::ffi::ThreadPool& pool, const float* x,
                      i64 batch, i64 channels, const Windows& windows,
                      const Rows<Index>& rows, Epilogue epilogue, float* y, i64 outputs) {
  const i64 pixels = windows.rows * windows.columns, depth = rows.limit;
  if (batch * pixels == 0) return true;
  std::atomic<bool> fine{true};
  tile_pixels(table, pool, batch, pixels, depth, rows.entries * pixels * batch, outputs,
              [&](i64 image, i64 at, i64 size, i64 vectors, i64 first, i64 last) {
    const i64 width = vectors * table.lanes;
    const i64 lines = (at + size - 1) / windows.columns - at / windows.columns;
    const i64 length = (windows.columns - 1) * windows.column_stride + windows.wide;
    float* panel = scratch(0, (depth + 1) * width);
    float* bordered =
        scratch(1, (lines * windows.row_stride + windows.tall) * length + kBehind);
    table.pack_windows(x + image * channels * windows.height * windows.width, windows,
                       channels, at, size, width, bordered, panel);
    std::memset(panel + depth * width, 0, width * sizeof(float));
    if (!kernels_of<Index>(table).pixels(panel, static_cast<int>(vectors), rows, epilogue,
                                         size, y + image * outputs * pixels + at, pixels,
                                         first, last))
      fine = false;
  });
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
    float* bordered =
        scratch(0, (plane.height + 2) * (plane.width + 2) + kBehind);
    for (i64 p = planes * part / parts; p < planes * (part + 1) / parts; ++p) {
      const i64 channel = p % channels;
      table.filter_plane(x + p * size, plane, taps + 9 * channel,
                         epilogue.bias ? epilogue.bias[channel] : 0.f, epilogue.relu,
                         bordered, y + p * result);
    }
  });
}

}  // namespace sparsejax_kernels

#endif  // SPARSEJAX_KERNELS_CONVOLUTIONS_H_
