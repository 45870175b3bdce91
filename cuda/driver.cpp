// The Runtime of CUDA. See driver.h.
#include "driver.h"

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

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

class CudaRuntime : public Runtime {
 public:
  int current_device() override {
    int index = 0;
    check(cudaGetDevice(&index), "to ask for the current device");
    return index;
  }

  void set_device(int index) override { check(cudaSetDevice(index), "to use device " + std::to_string(index)); }

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
    void* memory = nullptr;
    check_room(cudaMallocAsync(&memory, bytes, static_cast<cudaStream_t>(stream)), allocating(bytes, "device"));
    return memory;
  }

  void release(void* memory, void* stream) noexcept override {
    if (cudaFreeAsync(memory, static_cast<cudaStream_t>(stream)) != cudaSuccess) cudaGetLastError();
  }

  void* allocate_lasting(size_t bytes) override {
    const Relaxed mode;
    void* memory = nullptr;
    check_room(cudaMalloc(&memory, bytes), allocating(bytes, "device"));
    return memory;
  }

  void release_lasting(void* memory) noexcept override {
    const Relaxed mode;
    if (cudaFree(memory) != cudaSuccess) cudaGetLastError();
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
