// The kernels for any processor.
#include "attends.h"
#include "filters.h"
#include "gathers.h"
#include "packed_panels.h"
#include "panels.h"
#include "permutes.h"
#include "pixels.h"
#include "samples.h"
#include "tiles.h"
#include "windows.h"

namespace sparsejax_kernels {

extern const Table portable_table = {
    {gather<u16>, collect<u16>, add_rest<u16>, sum_panel<u16>, packed_panel<u16>,
     arrange<u16>, sample<u16>, sum_pixels<u16>},
    {gather<i32>, collect<i32>, add_rest<i32>, sum_panel<i32>, packed_panel<i32>,
     arrange<i32>, sample<i32>, sum_pixels<i32>},
    pack,
    kTallest,
    sum_tile,
    pack_tile,
    transpose_block,
    kLanes,
    kMostVectors,
    pack_pixels,
    pack_windows,
    filter_plane,
    kPermutes,
    permute,
    attend,
};

}  // namespace sparsejax_kernels
