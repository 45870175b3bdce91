// See fake_cuda.h.
#include "fake_cuda.h"

#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

#include <cstdlib>
#include <utility>

namespace flatstep::testing {

FakeCuda fake_cuda;

namespace {

FakeCuda& fake = fake_cuda;

void use(int device) {
  fake.context = device;
  fake.contexts.insert(device);
}

// What needs a context makes one on device 0 where none is current.
int device() {
  if (!fake.context) use(0);
  return *fake.context;
}

cudaError_t note(const char* call) {
  fake.calls.push_back(call);
  return fake.fails == call ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t allocate(const char* call, void** memory) {
  const int on = device();
  if (note(call) != cudaSuccess) return cudaErrorMemoryAllocation;
  *memory = std::malloc(1);
  fake.memory[*memory] = on;
  return cudaSuccess;
}

cudaError_t release(const char* call, void* memory) {
  note(call);
  const bool is_known = fake.memory.contains(memory) && fake.memory[memory] == device();
  fake.memory.erase(memory);
  if (is_known) std::free(memory);
  return is_known ? cudaSuccess : cudaErrorInvalidValue;
}

void disturb_captures() { fake.is_forbidden = fake.is_forbidden || !fake.is_relaxed; }

CUresult CUDAAPI get_current(CUcontext* context) {
  *context = fake.context ? reinterpret_cast<CUcontext>(intptr_t(*fake.context) + 1) : nullptr;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI set_current(CUcontext context) {
  fake.context.reset();
  if (context) fake.context = int(reinterpret_cast<intptr_t>(context)) - 1;
  return CUDA_SUCCESS;
}

void drop(FakeCuda::Object* object) {
  if (--object->references > 0) return;
  object->destroy(object->owned);
  delete object;
}

}  // namespace

void FakeCuda::end_graph() {
  for (Object* object : std::exchange(of_graph, {})) drop(object);
}

}  // namespace flatstep::testing

using namespace flatstep::testing;  // NOLINT: the functions below are CUDA's

extern "C" {

const char* cudaGetErrorString(cudaError_t) { return "a planned failure"; }
const char* cudaGetErrorName(cudaError_t) { return "planned"; }
cudaError_t cudaGetLastError() { return cudaSuccess; }

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  const bool before = std::exchange(fake_cuda.is_relaxed, *mode == cudaStreamCaptureModeRelaxed);
  *mode = before ? cudaStreamCaptureModeRelaxed : cudaStreamCaptureModeGlobal;
  return cudaSuccess;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult*) {
  const std::string asked = name;
  *function = nullptr;
  if (asked == "cuCtxGetCurrent") *function = reinterpret_cast<void*>(&get_current);
  if (asked == "cuCtxSetCurrent") *function = reinterpret_cast<void*>(&set_current);
  return cudaSuccess;
}

cudaError_t cudaGetDriverEntryPoint(const char* name, void** function, unsigned long long flags,
                                    cudaDriverEntryPointQueryResult* result) {
  return cudaGetDriverEntryPointByVersion(name, function, 0, flags, result);
}

cudaError_t cudaGetDevice(int* index) {
  *index = fake_cuda.context.value_or(0);
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int index) {
  use(index);
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMemoryPoolsSupported && fake_cuda.has_pools;
  return cudaSuccess;
}

cudaError_t cudaMallocAsync(void** memory, size_t, cudaStream_t) {
  return fake_cuda.has_pools ? allocate("cudaMallocAsync", memory) : cudaErrorNotSupported;
}
cudaError_t cudaFreeAsync(void* memory, cudaStream_t) {
  return fake_cuda.has_pools ? release("cudaFreeAsync", memory) : cudaErrorNotSupported;
}
cudaError_t cudaMalloc(void** memory, size_t) {
  disturb_captures();
  return allocate("cudaMalloc", memory);
}
cudaError_t cudaFree(void* memory) {
  disturb_captures();
  return release("cudaFree", memory);
}
cudaError_t cudaHostAlloc(void** memory, size_t, unsigned) {
  disturb_captures();
  return allocate("cudaHostAlloc", memory);
}
cudaError_t cudaFreeHost(void* memory) {
  disturb_captures();
  return release("cudaFreeHost", memory);
}

cudaError_t cudaUserObjectCreate(cudaUserObject_t* object, void* owned, cudaHostFn_t destroy, unsigned count,
                                 unsigned) {
  if (note("cudaUserObjectCreate") != cudaSuccess) return cudaErrorMemoryAllocation;
  *object = reinterpret_cast<cudaUserObject_t>(new FakeCuda::Object{owned, destroy, int(count)});
  return cudaSuccess;
}
cudaError_t cudaUserObjectRelease(cudaUserObject_t object, unsigned) {
  drop(reinterpret_cast<FakeCuda::Object*>(object));
  return cudaSuccess;
}
cudaError_t cudaGraphRetainUserObject(cudaGraph_t, cudaUserObject_t object, unsigned, unsigned flags) {
  if (note("cudaGraphRetainUserObject") != cudaSuccess) return cudaErrorMemoryAllocation;
  auto* const own = reinterpret_cast<FakeCuda::Object*>(object);
  if (flags != cudaGraphUserObjectMove) ++own->references;
  fake_cuda.of_graph.push_back(own);
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  *status = cudaStreamCaptureStatusActive;
  return cudaSuccess;
}
#if CUDART_VERSION >= 13000
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t, cudaStreamCaptureStatus* status, unsigned long long*, cudaGraph_t*,
                                     const cudaGraphNode_t**, const cudaGraphEdgeData**, size_t*) {
#else
cudaError_t cudaStreamGetCaptureInfo_v2(cudaStream_t, cudaStreamCaptureStatus* status, unsigned long long*,
                                        cudaGraph_t*, const cudaGraphNode_t**, size_t*) {
#endif
  *status = cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

// Asked for nothing here.
cudaError_t cudaStreamGetId(cudaStream_t, unsigned long long*) { return cudaSuccess; }
cudaError_t cudaMemcpyAsync(void*, const void*, size_t, cudaMemcpyKind, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaMemsetAsync(void*, int, size_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t*, unsigned) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t*, unsigned) { return cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaEventQuery(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaDriverGetVersion(int*) { return cudaSuccess; }
cudaError_t cudaGetDeviceCount(int*) { return cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp*, int) { return cudaSuccess; }
}
