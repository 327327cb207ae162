// The kernels of one instruction set, as the functions that the handlers choose from.
#ifndef SPARSEJAX_KERNELS_TABLE_H_
#define SPARSEJAX_KERNELS_TABLE_H_

#include <cstdint>

namespace sparsejax_kernels {

using i64 = int64_t;
using u8 = uint8_t;
using u16 = uint16_t;
using i32 = int32_t;

// What follows the sum of an output: its bias (null: none) and a ReLU.
struct Epilogue {
  const float* bias;
  bool relu;
};

// Rows of weights that are sums over rows of a panel: those of a fan-in weight
// (starts null: row r has the entries r * length up to (r + 1) * length), or those of
// its transposed index, whose starts and indices were checked when its values were
// arranged.
template <class Index>
struct Rows {
  const float* values;
  const Index* indices;
  const i32* starts;
  i64 length;
  i64 entries;
  // Indices up to this one are legal; the panel has that many rows and one of zeros.
  i64 limit;
};

// The regular part of a packed weight: offsets lie as [slices][blocks][slots][16], a
// slice being 16 outputs and a block 32 inputs; the offset 32 is padding, which reads a
// zero. Values of a slice lie as its offsets do, then follow those of the rest.
struct Slices {
  const float* values;
  // From the values of one slice to those of the next.
  i64 stride;
  const u8* offsets;
  i64 slices;
  i64 blocks;
  i64 slots;
};

// The other part, of outputs that keep more weights of a block than it has slots:
// the inputs of the values, as [slices][depth][16], padding last.
template <class Index>
struct Rest {
  const float* values;
  i64 stride;
  const Index* inputs;
  i64 depth;
  // The input that padding reads, a zero; all others are smaller.
  i64 limit;
};

// Rows of a panel for packed weights: those of a block, and the zeros that padding reads.
constexpr int kRowsOfBlock = 33;

// All return false where an index is out of range, and never read through it.
template <class Index>
struct Kernels {
  // y[b, o] for a batch of one or two, outputs first to last. Rows of x lie stride
  // apart and end with the zero that padding reads.
  using Gather = bool (*)(const float* x, i64 stride, i64 batch,
                          const Rows<Index>& rows, Epilogue epilogue, float* y,
                          i64 outputs, i64 first, i64 last);
  Gather gather;
  // The same by single loads: faster where the gather instruction is slow.
  Gather collect;
  // Adds to y[b][columns], for slices first to last, and rectifies the sums if asked to.
  bool (*add_rest)(const float* x, i64 stride, i64 batch, const Rest<Index>& rest,
                   bool relu, float* y, i64 columns, i64 first, i64 last);
  // y[b, r] for b < batch <= width, from a panel [limit + 1][width].
  bool (*panel)(const float* panel, int width, const Rows<Index>& rows,
                Epilogue epilogue, i64 batch, float* y, i64 stride, i64 first,
                i64 last);
  // y[b, o] for the outputs o of slices first to last, from a panel [blocks][33][width]
  // and one more row of zeros; sums is memory for 16 width floats a slice.
  bool (*packed_panel)(const float* panel, int width, const Slices& slices,
                       const Rest<Index>& rest, Epilogue epilogue, i64 batch,
                       float* sums, float* y, i64 stride, i64 first, i64 last);
  // to[e] = values[positions[e]] for entries first to last of a transposed index with
  // that many entries, whose indices go up to limit.
  bool (*arrange)(const float* values, const i32* positions, const Index* indices,
                  i64 entries, i64 limit, float* to, i64 first, i64 last);
  // gradient[o, j] (+)= sum over b of cotangent[o, b] * panel[indices[o, j], b].
  bool (*sample)(const float* cotangent, const float* panel, int width,
                 const Index* indices, i64 length, i64 limit, bool add,
                 float* gradient, i64 first, i64 last);
  // y[r, p] for p < pixels, rows stride apart, from a panel [limit + 1][vectors]; pixels
  // fill all of the vectors but the last, or all, and those that are left, at most four,
  // have a panel [limit + 1][4] behind the other.
  bool (*pixels)(const float* panel, int vectors, const Rows<Index>& rows,
                 Epilogue epilogue, i64 pixels, float* y, i64 stride, i64 first,
                 i64 last);
};

// What one token sees of a cache of keys and values [capacity][size].
struct Seen {
  const float* keys;
  const float* values;
  i64 size;
  i64 first;
  i64 last;
  // What products with the query are multiplied by.
  float scale;
};

// What a 3x3 filter reads and writes: output row h is centred on input row
// h * stride + skip_rows, and likewise for columns. Outside there are zeros.
struct Plane {
  i64 height;
  i64 width;
  i64 stride;
  i64 rows;
  i64 columns;
  i64 skip_rows;
  i64 skip_columns;
};

// What is read behind the rows of an image with their border.
constexpr i64 kBehind = 48;

// The inputs of a convolution's outputs: output row h reads the tall input rows from
// h * row_stride - above on, and likewise for columns. Outside there are zeros.
struct Windows {
  i64 height;
  i64 width;
  i64 rows;
  i64 columns;
  i64 tall;
  i64 wide;
  i64 row_stride;
  i64 column_stride;
  i64 above;
  i64 before;
};

// Where the two factors of a product begin.
struct Term {
  i64 left;
  i64 right;
};

// y[t, c] = sum over terms and k < depth of left[k, t] * right[k, c], for columns c.
// Rows of right are a multiple of four floats, and all of them are read. The bias is one
// number a row t, or one a column.
struct Products {
  const Term* terms;
  i64 count;
  i64 depth;
  const float* left;
  i64 left_stride;
  const float* right;
  i64 right_stride;
  i64 columns;
  Epilogue epilogue;
  bool bias_of_rows;
  float* y;
  i64 y_stride;
};

struct Table {
  Kernels<u16> small;
  Kernels<i32> large;
  // x[batch, columns] -> panel[column][width], zeros from batch up to width.
  void (*pack)(const float* x, i64 columns, i64 batch, int width, float* panel,
               i64 first, i64 last);
  // The most rows that the sums of a tile have room for.
  int tallest;
  void (*sum_tile)(const Products& products, i64 rows);
  // x[rows, columns] -> tile[column][rows], for columns first to last.
  void (*pack_tile)(const float* x, i64 rows, i64 columns, i64 first, i64 last,
                    float* tile);
  // from[rows, columns] -> to[column][stride], zeros from rows up to the stride.
  void (*transpose_block)(const float* from, i64 rows, i64 columns, i64 stride,
                          float* to);
  // Floats of a vector, and how many vectors of pixels are summed at a time.
  int lanes;
  int most_vectors;
  // x[channel][pixels], rows stride apart -> panel[channel][width], then zeros.
  void (*pack_pixels)(const float* x, i64 stride, i64 channels, i64 pixels, i64 width,
                      float* panel);
  // x[channel][height, width] -> panel[tap][channel][width], the taps of the outputs
  // first to first + size, then zeros; bordered is memory for the rows that they read.
  void (*pack_windows)(const float* x, const Windows& windows, i64 channels, i64 first,
                       i64 size, i64 width, float* bordered, float* panel);
  // y[rows, columns] for one channel.
  void (*filter_plane)(const float* x, const Plane& plane, const float* taps,
                       float bias, bool relu, float* y);
  // Whether one instruction selects from a block; without, permute is a loop.
  bool permutes;
  // y[b][slices * 16] for a batch of 1, 2, 4 or 8 and slices first to last; rows of x
  // lie stride apart, a multiple of 16 and blocks * 32 at least.
  bool (*permute)(const float* x, i64 stride, i64 batch, const Slices& slices,
                  Epilogue epilogue, float* y, i64 first, i64 last);
  // y[size], what a query takes of the values; scores is memory for one number a token
  // that is seen, and 15 more.
  void (*attend)(const float* query, const Seen& seen, float* scores, float* y);
};

extern const Table portable_table;
extern const Table avx2_table;
extern const Table avx512_table;

}  // namespace sparsejax_kernels

#endif  // SPARSEJAX_KERNELS_TABLE_H_
