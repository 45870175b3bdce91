// The kernels of the stand-in (stand_in.h): a device's own code, carried out thread by thread. Compiled with the
// kernels' flags, which say how arithmetic rounds.
#include "batch.cuh"
#include "device_norm.cuh"
#include "prepare.cuh"
#include "stand_in.h"
#include "sweep.cuh"

#include <cstring>

namespace flatstep::inline FLATSTEP_NAMESPACE {

// Every thread of the blocks that a device would be given, last ones first: none may count on another.
template <class F>
void for_each_thread(int64_t threads, F&& thread) {
  for (int64_t i = device::blocks_for(threads) * device::block_threads; i-- > 0;) thread(i);
}

void launch_tables(const device::Batch& batch, const device::Tables& tables, void* stream) {
  testing::StandIn::active().enqueue_launch(stream, {tables.rows, tables.tiles}, [batch, tables] {
    for_each_thread(device::threads_of(batch), [&](int64_t thread) { lay_out(batch, tables, thread); });
  });
}

template <class R, class L>
void load() {
  testing::StandIn::active().load_kernel();
}

template <class R, class T>
void launch_preparation(const device::Preparation& p, void* stream) {
  testing::StandIn::active().enqueue_launch(stream, {p.rows, p.scalars, p.coefficients}, [preparation = p] {
    for_each_thread(preparation.row_count, [&](int64_t thread) { prepare_row<R, T>(preparation, thread); });
  });
}

template <class R, class L>
void launch_sweep(const device::Sweep& s, void* stream) {
  constexpr int multiprocessors = 2;  // so few that steps of tests share tiles in all ways
  testing::StandIn::active().enqueue_launch(stream, {s.tiles, s.segments, s.gradients, s.coefficients}, [sweep = s] {
    const int bits = device::lane_bits_for(sweep.tile_count, multiprocessors), lanes = 1 << bits;
    for_each_thread(sweep.tile_count << bits, [&](int64_t thread) {
      sweep_lane<R, L>(sweep, [&] { return LaneOfTile{thread >> bits, int(thread % lanes), lanes}; });
    });
  });
}

// Round by round, blocks and threads in any order.
template <class Part>
void launch_norm(const device::Norm& n, int64_t blocks, void* stream) {
  std::vector<const void*> tables = {n.segments, n.found, n.group_values};
  testing::StandIn::active().enqueue_launch(stream, tables, [norm = n, blocks] {
    for (int64_t block = blocks; block-- > 0;) {
      NormBlock shared[device::norm_threads];
      std::memset(shared, 0x5a, sizeof shared);  // what no thread has written must not matter
      for (int round = 0; round < Part::rounds(norm); ++round) {
        for (int thread = device::norm_threads; thread-- > 0;) Part::round(norm, round, block, thread, shared);
      }
    }
  });
}

void launch_zeros(const device::Sweep& s, int tile_elements, void* stream) {
  testing::StandIn::active().enqueue_launch(stream, {s.tiles, s.segments, s.gradients}, [sweep = s, tile_elements] {
    constexpr int lanes = 1 << device::warp_bits;
    for_each_thread(sweep.tile_count << device::warp_bits, [&](int64_t thread) {
      zero_lane(sweep, tile_elements, {thread / lanes, int(thread % lanes), lanes});
    });
  });
}

constexpr device::SharedKernels shared_kernels = {
    [] { testing::StandIn::active().load_kernel(); },
    [](const device::Norm& norm, void* stream) { launch_norm<UnitOfNorm>(norm, norm.unit_count, stream); },
    [](const device::Norm& norm, void* stream) { launch_norm<GroupOfNorm>(norm, norm.group_count, stream); },
    [](const device::Norm& norm, void* stream) { launch_norm<RestOfNorm>(norm, 1, stream); }, &launch_zeros};

}  // namespace flatstep::inline FLATSTEP_NAMESPACE

#include "stamp.cuh"

namespace flatstep::testing {

const device::LayOut StandIn::lay_out = &launch_tables;
const device::Kernels StandIn::kernels = Table<Rules>::rows;
const device::SharedKernels StandIn::shared_kernels = flatstep::shared_kernels;

}  // namespace flatstep::testing
