// The cuda target: every kernel of the catalogue. Compiled by nvcc with the flags that CMakeLists.txt gives kernels.
#include <cuda_runtime.h>

#include "batch.cuh"
#include "device_norm.cuh"
#include "prepare.cuh"
#include "sweep.cuh"
#include "target.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

__global__ void make_tables(const __grid_constant__ device::Batch batch,
                            const __grid_constant__ device::Tables tables) {
  lay_out(batch, tables, int64_t(blockIdx.x) * blockDim.x + threadIdx.x);
}

template <class R, class T>
__global__ void prepare(device::Preparation preparation) {
  prepare_row<R, T>(preparation, int64_t(blockIdx.x) * blockDim.x + threadIdx.x);
}

// Read from its registers at every call, so that no other keeps it.
__device__ __forceinline__ int64_t this_thread() {
  unsigned block, thread;
  asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(block));
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
  return int64_t(block) * device::block_threads + thread;
}

template <class R, class L>
__global__ void __launch_bounds__(device::block_threads, blocks_at_once<R, L>())
    sweep(device::Sweep sweep, int lane_bits, int lanes) {
  sweep_lane<R, L>(sweep, [=] {
    const int64_t thread = this_thread();
    return LaneOfTile{thread >> lane_bits, int(thread) & (lanes - 1), lanes};
  });
}

void launch_tables(const device::Batch& batch, const device::Tables& tables, void* stream) {
  const auto blocks = unsigned(device::blocks_for(device::threads_of(batch)));
  make_tables<<<blocks, device::block_threads, 0, static_cast<cudaStream_t>(stream)>>>(batch, tables);
}

// What fails here is found as the failure of a launch is.
template <class R, class L>
void load() {
  cudaFuncAttributes unused;
  if (cudaFuncGetAttributes(&unused, prepare<R, typename L::Compute>) == cudaSuccess)
    cudaFuncGetAttributes(&unused, sweep<R, L>);
}

// Of the current device; as if it had one, where that is not known.
int multiprocessors() {
  int device = 0, count = 1;
  if (cudaGetDevice(&device) == cudaSuccess) cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
}

template <class R, class T>
void launch_preparation(const device::Preparation& preparation, void* stream) {
  const auto blocks = unsigned(device::blocks_for(preparation.row_count));
  prepare<R, T><<<blocks, device::block_threads, 0, static_cast<cudaStream_t>(stream)>>>(preparation);
}

template <class R, class L>
void launch_sweep(const device::Sweep& args, void* stream) {
  const int lane_bits = device::lane_bits_for(args.tile_count, multiprocessors());
  const auto blocks = unsigned(device::blocks_for(args.tile_count << lane_bits));
  sweep<R, L><<<blocks, device::block_threads, 0, static_cast<cudaStream_t>(stream)>>>(args, lane_bits, 1 << lane_bits);
}

// A part of a norm (device_norm.cuh), one block of threads.
template <class Part>
__global__ void __launch_bounds__(device::norm_threads) find_norm(const __grid_constant__ device::Norm norm) {
  __shared__ NormBlock shared[device::norm_threads];
  const int rounds = Part::rounds(norm);
#pragma unroll 1
  for (int round = 0; round < rounds; ++round) {
    Part::round(norm, round, blockIdx.x, int(threadIdx.x), shared);
    __syncthreads();
  }
}

__global__ void __launch_bounds__(device::block_threads) zero_gradients(device::Sweep sweep, int tile_elements) {
  constexpr int lanes = 1 << device::warp_bits;
  const int64_t thread = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  zero_lane(sweep, tile_elements, {thread / lanes, int(thread % lanes), lanes});
}

void launch_zeros(const device::Sweep& sweep, int tile_elements, void* stream) {
  const auto blocks = unsigned(device::blocks_for(sweep.tile_count << device::warp_bits));
  zero_gradients<<<blocks, device::block_threads, 0, static_cast<cudaStream_t>(stream)>>>(sweep, tile_elements);
}

void load_shared() {
  cudaFuncAttributes unused;
  if (cudaFuncGetAttributes(&unused, find_norm<UnitOfNorm>) == cudaSuccess &&
      cudaFuncGetAttributes(&unused, find_norm<GroupOfNorm>) == cudaSuccess &&
      cudaFuncGetAttributes(&unused, find_norm<RestOfNorm>) == cudaSuccess)
    cudaFuncGetAttributes(&unused, zero_gradients);
}

template <class Part>
void launch_norm(const device::Norm& norm, int64_t blocks, void* stream) {
  find_norm<Part><<<unsigned(blocks), device::norm_threads, 0, static_cast<cudaStream_t>(stream)>>>(norm);
}

constexpr device::SharedKernels shared_kernels = {
    &load_shared,
    [](const device::Norm& norm, void* stream) { launch_norm<UnitOfNorm>(norm, norm.unit_count, stream); },
    [](const device::Norm& norm, void* stream) { launch_norm<GroupOfNorm>(norm, norm.group_count, stream); },
    [](const device::Norm& norm, void* stream) { launch_norm<RestOfNorm>(norm, 1, stream); }, &launch_zeros};

}  // namespace flatstep::inline FLATSTEP_NAMESPACE

#include "stamp.cuh"

namespace flatstep::device {

const Kernels cuda_kernels = Table<Rules>::rows;
const LayOut cuda_lay_out = &launch_tables;
const SharedKernels cuda_shared = shared_kernels;

}  // namespace flatstep::device
