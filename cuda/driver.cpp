// The Runtime of CUDA. See driver.h.
#include "driver.h"

#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "device.h"

namespace flatstep::device {

namespace {

std::string text(cudaError_t status) {
  std::string what = std::string(cudaGetErrorString(status)) + " (" + cudaGetErrorName(status) + ")";
  if (status == cudaErrorNoKernelImageForDevice)
    what += "; this was built for " FLATSTEP_CUDA_ARCHITECTURES ", set FLATSTEP_CUDA_ARCHITECTURES and reinstall it";
  return what;
}

void check(cudaError_t status, const std::string& what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // what is known by now need not fail the next call too
  throw std::runtime_error("flatstep failed " + what + " on CUDA: " + text(status));
}

// The same where something is made, before anything has changed.
void check_room(cudaError_t status, const std::string& what) {
  if (status != cudaErrorMemoryAllocation) return check(status, what);
  cudaGetLastError();
  throw OutOfDeviceMemory("flatstep failed " + what + " on CUDA: " + text(status) +
                          "; parameters and state are as before; free memory of other owners");
}

std::string allocating(size_t bytes, const char* where) {
  return "to allocate " + std::to_string(bytes) + " bytes of " + where + " memory for a step";
}

// Returns what it was.
int exchange_capture_mode(int mode) {
  auto own = cudaStreamCaptureMode(mode);
  cudaThreadExchangeStreamCaptureMode(&own);
  return int(own);
}

// A function of the driver, found through the runtime, so that nothing links the driver.
template <class Function>
Function driver_function(const char* name) {
  void* found = nullptr;
#if CUDART_VERSION >= 12050
  constexpr unsigned version = 4000;  // the first that has it
  check(cudaGetDriverEntryPointByVersion(name, &found, version, cudaEnableDefault), "to find its driver");
#else
  check(cudaGetDriverEntryPoint(name, &found, cudaEnableDefault), "to find its driver");
#endif
  if (!found) throw std::runtime_error(std::string("the CUDA driver has no ") + name);
  return reinterpret_cast<Function>(found);
}

// The context that is current for a thread, null for none. cudaGetDevice and cudaSetDevice could not restore it: a
// thread that has used no device is told that device 0 is current, and to set that would make a context there.
struct CurrentContext {
  PFN_cuCtxGetCurrent_v4000 get = driver_function<PFN_cuCtxGetCurrent_v4000>("cuCtxGetCurrent");
  PFN_cuCtxSetCurrent_v4000 set = driver_function<PFN_cuCtxSetCurrent_v4000>("cuCtxSetCurrent");

  static const CurrentContext& of_thread() {
    static const CurrentContext functions;
    return functions;
  }
};

int current_device() {
  int index = 0;
  check(cudaGetDevice(&index), "to ask for the current device");
  return index;
}

// Without pools, as on some virtual GPUs, memory is allocated and released beside all streams, which may wait for them.
bool has_memory_pools() {
  int has_pools = 0;
  check(cudaDeviceGetAttribute(&has_pools, cudaDevAttrMemoryPoolsSupported, current_device()),
        "to ask whether the device has memory pools");
  return has_pools != 0;
}

cudaGraph_t graph_captured_by(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  cudaGraph_t graph = nullptr;
#if CUDART_VERSION >= 13000
  const cudaError_t error = cudaStreamGetCaptureInfo(stream, &status, nullptr, &graph, nullptr, nullptr, nullptr);
#else
  const cudaError_t error = cudaStreamGetCaptureInfo_v2(stream, &status, nullptr, &graph, nullptr, nullptr);
#endif
  check(error, "to ask for the graph that a stream is captured into");
  if (status != cudaStreamCaptureStatusActive) throw std::runtime_error("the capture of a CUDA graph has failed");
  return graph;
}

// Memory of graphs that are gone. A graph's end is told on a thread of CUDA's, from which CUDA must not be called.
class Dropped {
 public:
  void add(void* memory, int device) noexcept {
    try {
      const std::lock_guard lock(mutex_);
      all_.push_back({memory, device});
    } catch (...) {  // there is no memory to note it in, and it stays allocated
    }
  }

  std::vector<void*> take(int device) {
    const std::lock_guard lock(mutex_);
    const auto is_elsewhere = [device](const Memory& memory) { return memory.device != device; };
    const auto first = std::partition(all_.begin(), all_.end(), is_elsewhere);
    std::vector<void*> taken;
    for (auto own = first; own != all_.end(); ++own) taken.push_back(own->memory);
    all_.erase(first, all_.end());
    return taken;
  }

 private:
  struct Memory {
    void* memory;
    int device;
  };

  std::mutex mutex_;
  std::vector<Memory> all_;
};

// Never destroyed: graphs may end after everything else.
Dropped& dropped() {
  static Dropped& own = *new Dropped;
  return own;
}

struct GraphMemory {
  void* memory;
  int device;
};

void CUDART_CB drop(void* owned) {
  const auto* const own = static_cast<GraphMemory*>(owned);
  dropped().add(own->memory, own->device);
  delete own;
}

class CudaRuntime : public Runtime {
 public:
  void* make_current(int index) override {
    CUcontext before = nullptr;
    if (CurrentContext::of_thread().get(&before) != CUDA_SUCCESS) before = nullptr;  // nothing has used the driver yet
    if (!before || current_device() != index) check(cudaSetDevice(index), "to use device " + std::to_string(index));
    return before;
  }

  // If this fails, the thread's next call reports it.
  void restore(void* before) noexcept override { CurrentContext::of_thread().set(static_cast<CUcontext>(before)); }

  bool is_capturing(void* stream) override {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    check(cudaStreamIsCapturing(static_cast<cudaStream_t>(stream), &status), "to ask whether a stream is captured");
    return status != cudaStreamCaptureStatusNone;
  }

  uint64_t stream_id(void* stream) override {
    unsigned long long id = 0;
    check(cudaStreamGetId(static_cast<cudaStream_t>(stream), &id), "to ask which stream it is");
    return id;
  }

  void* allocate(size_t bytes, void* stream) override {
    if (!has_memory_pools()) return allocate_lasting(bytes);
    void* memory = nullptr;
    check_room(cudaMallocAsync(&memory, bytes, static_cast<cudaStream_t>(stream)), allocating(bytes, "device"));
    return memory;
  }

  void release(void* memory, void* stream) noexcept override {
    try {
      if (!has_memory_pools()) return release_lasting(memory);
    } catch (const std::runtime_error&) {  // nothing can be done on the device any more
      return;
    }
    if (cudaFreeAsync(memory, static_cast<cudaStream_t>(stream)) != cudaSuccess) cudaGetLastError();
  }

  void release_lasting(void* memory) noexcept override {
    const Relaxed mode;
    if (cudaFree(memory) != cudaSuccess) cudaGetLastError();
  }

  void* allocate_for_graph(size_t bytes, void* stream) override {
    const cudaGraph_t graph = graph_captured_by(static_cast<cudaStream_t>(stream));
    auto own = std::make_unique<GraphMemory>(GraphMemory{allocate_lasting(bytes), current_device()});
    void* const memory = own->memory;
    cudaUserObject_t object = nullptr;
    cudaError_t status = cudaUserObjectCreate(&object, own.get(), drop, 1, cudaUserObjectNoDestructorSync);
    if (status != cudaSuccess) {
      release_lasting(memory);
      check_room(status, "to give memory to a graph");
    }
    own.release();  // `drop` deletes it
    status = cudaGraphRetainUserObject(graph, object, 1, cudaGraphUserObjectMove);
    if (status != cudaSuccess) cudaUserObjectRelease(object, 1);
    check_room(status, "to give memory to a graph");
    return memory;
  }

  void release_dropped() noexcept override {
    try {
      for (void* memory : dropped().take(current_device())) release_lasting(memory);
    } catch (const std::exception&) {  // the memory stays allocated
    }
  }

  void* allocate_pinned(size_t bytes) override {
    const Relaxed mode;
    void* memory = nullptr;
    check_room(cudaHostAlloc(&memory, bytes, cudaHostAllocDefault), allocating(bytes, "pinned host"));
    return memory;
  }

  void release_pinned(void* memory) noexcept override {
    const Relaxed mode;
    if (cudaFreeHost(memory) != cudaSuccess) cudaGetLastError();
  }

  void copy(void* to, const void* from_pinned, size_t bytes, void* stream) override {
    check(cudaMemcpyAsync(to, from_pinned, bytes, cudaMemcpyHostToDevice, static_cast<cudaStream_t>(stream)),
          "to copy a step's tables to the device");
  }

  void copy_and_wait(void* to, const void* from, size_t bytes, void* stream) override {
    const auto own = static_cast<cudaStream_t>(stream);
    cudaError_t status = cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, own);
    if (status == cudaSuccess) status = cudaStreamSynchronize(own);
    check(status, "to copy between the host and the device");
  }

  void clear(void* memory, size_t bytes, void* stream) override {
    check(cudaMemsetAsync(memory, 0, bytes, static_cast<cudaStream_t>(stream)), "to clear new state");
  }

  void copy_now(void* to, const void* from, size_t bytes) override {
    const Relaxed mode;
    cudaStream_t stream = nullptr;
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "to make a stream");
    cudaError_t status = cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream);
    if (status == cudaSuccess) status = cudaStreamSynchronize(stream);
    const cudaError_t end = cudaStreamDestroy(stream);
    check(status == cudaSuccess ? end : status, "to copy a step's tables to the device");
  }

  void* make_event() override {
    cudaEvent_t event = nullptr;
    check_room(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "to make an event");
    return event;
  }

  void record(void* event, void* stream) override {
    check(cudaEventRecord(static_cast<cudaEvent_t>(event), static_cast<cudaStream_t>(stream)), "to record an event");
  }

  void wait_in_stream(void* stream, void* event) override {
    check(cudaStreamWaitEvent(static_cast<cudaStream_t>(stream), static_cast<cudaEvent_t>(event), 0),
          "to let a stream wait for another");
  }

  bool is_past(void* event) override {
    const Relaxed mode;  // asking is held to disturb the captures of other threads
    const cudaError_t status = cudaEventQuery(static_cast<cudaEvent_t>(event));
    if (status == cudaErrorNotReady) {
      cudaGetLastError();
      return false;
    }
    check(status, "to ask for an event");
    return true;
  }

  void wait(void* event) noexcept override {
    const Relaxed mode;
    if (cudaEventSynchronize(static_cast<cudaEvent_t>(event)) != cudaSuccess) cudaGetLastError();
  }

  void release_event(void* event) noexcept override {
    if (cudaEventDestroy(static_cast<cudaEvent_t>(event)) != cudaSuccess) cudaGetLastError();
  }

  void load(void (*kernels)()) override {
    const Relaxed mode;  // loading is forbidden by default while any stream is capturing
    kernels();
  }

  Failure launch_failure() override {
    const cudaError_t status = cudaGetLastError();
    if (status == cudaSuccess) return {};
    return {text(status), status == cudaErrorMemoryAllocation};
  }

 private:
  static void* allocate_lasting(size_t bytes) {
    const Relaxed mode;
    void* memory = nullptr;
    check_room(cudaMalloc(&memory, bytes), allocating(bytes, "device"));
    return memory;
  }
};

}  // namespace

Relaxed::Relaxed() : before_(exchange_capture_mode(cudaStreamCaptureModeRelaxed)) {}
Relaxed::~Relaxed() { exchange_capture_mode(before_); }

void copy_there(void* to, const void* from, size_t bytes, void* stream) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, static_cast<cudaStream_t>(stream)),
        "to copy an operand of a step");
}

Runtime& cuda_runtime() {
  static CudaRuntime runtime;
  return runtime;
}

std::vector<CudaDevice> cuda_devices() {
  int driver = 0, count = 0;
  check(cudaDriverGetVersion(&driver), "to ask for the driver");
  if (driver == 0) throw std::runtime_error("there is no CUDA driver on this machine");
  constexpr int major = 1000;
  if (driver / major < CUDART_VERSION / major) {
    throw std::runtime_error("the CUDA driver is for CUDA " + std::to_string(driver / major) +
                             ", but flatstep was built by nvcc of CUDA " + std::to_string(CUDART_VERSION / major) +
                             "; install a later driver, or reinstall flatstep with an earlier nvcc");
  }
  check(cudaGetDeviceCount(&count), "to count the devices");
  std::vector<CudaDevice> devices;
  for (int index = 0; index < count; ++index) {
    cudaDeviceProp properties;
    check(cudaGetDeviceProperties(&properties, index), "to ask for a device's properties");
    devices.push_back({properties.name, properties.major, properties.minor});
  }
  return devices;
}

}  // namespace flatstep::device
