// Convolutions of channel-first pixels: how the work is cut up.
#ifndef SPARSEJAX_KERNELS_CONVOLUTIONS_H_
#define SPARSEJAX_KERNELS_CONVOLUTIONS_H_

#include <cstring>

#include "fan_in.h"

namespace sparsejax_kernels {

// y[batch, outputs, pixels] = sums over rows of x[batch, rows.limit, pixels].
template <class Index>
bool convolve_pixels(const Table& table, xla::ffi::ThreadPool& pool, const float* x,
                     i64 batch, i64 pixels, const Rows<Index>& rows, Epilogue epilogue,
                     float* y, i64 outputs) {
  const i64 channels = rows.limit, lanes = table.lanes;
  const i64 vectors = ceil_div(pixels, lanes);
  if (batch * pixels == 0) return true;
  i64 threads = std::max<i64>(1, pool.num_threads());
  if (rows.entries * pixels * batch < kWorthAThread) threads = 1;
  // One task packs its pixels and sums all outputs; with too few pixels for everybody,
  // a part of the outputs.
  i64 tiles = ceil_div(vectors, table.most_vectors);
  if (tiles * batch < threads)
    tiles = std::min(vectors, ceil_div(threads, batch));
  const i64 parts = tiles * batch < threads ? ceil_div(threads, tiles * batch) : 1;
  std::atomic<bool> fine{true};
  parallel_for(pool, batch * tiles * parts, threads, [&](i64 task) {
    const i64 part = task % parts, tile = task / parts % tiles;
    const i64 image = task / parts / tiles;
    const i64 begin = vectors * tile / tiles, end = vectors * (tile + 1) / tiles;
    const i64 first = begin * lanes, width = (end - begin) * lanes;
    const i64 size = std::min(width, pixels - first);
    float* panel = scratch(0, (channels + 1) * width);
    table.pack_pixels(x + image * channels * pixels + first, pixels, channels, size,
                      width, panel);
    std::memset(panel + channels * width, 0, width * sizeof(float));
    if (!kernels_of<Index>(table).pixels(
            panel, static_cast<int>(end - begin), rows, epilogue, size,
            y + image * outputs * pixels + first, pixels, outputs * part / parts,
            outputs * (part + 1) / parts))
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
