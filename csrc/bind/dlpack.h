// DLPack: its structs, its C exchange API, its capsules and its streams. For csrc/bind only. The layouts are fixed by
// DLPack 1.3, and for older capsules by what was before 1.0.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "device.h"
#include "python.h"

namespace flatstep::dlpack {

constexpr uint32_t known_major_version = 1;
constexpr int32_t cuda_managed = 13;  // memory of both the processor and the devices

// Streams as numbers: these two have one of their own, all others are pointers.
constexpr int64_t legacy_stream = 1, no_stream = -1;

struct DataType {
  uint8_t code, bits;
  uint16_t lanes;
};

struct TensorView {
  void* data;
  Device device;
  int32_t ndim;
  DataType dtype;
  int64_t* shape;
  int64_t* strides;  // in elements; may be null in a capsule: in C order
  uint64_t byte_offset;
};

struct Header {
  uint32_t major, minor;
  Header* previous;  // an older table
};

// A table of functions that a framework's tensor type offers. It describes a tensor in some 50 nanoseconds, and takes
// no reference.
struct ExchangeAPI {
  Header header;
  void (*unused[3])();                                 // these make and take owning tensors
  int (*describe_raw)(void* object, TensorView* out);  // 0, or a Python error is set
  int (*current_stream_raw)(int32_t device_type, int32_t device, void** out);

  // The tensor where it lies now, as its framework describes it; shape and strides belong to the object. False where
  // the framework cannot describe it (a sparse tensor), where no kernel knows the dtype, and where numbers have no
  // memory.
  bool describe(nb::handle object, Tensor& out) const;
  void* current_stream(const Device& device) const;
};

// The table in the capsule that a type offers as __dlpack_c_exchange_api__, in the version that we know; null for None
// and where it has none. Raises for other objects.
const ExchangeAPI* exchange_api_in(nb::handle capsule);

bool is_host(const Device& device);         // memory that the processor may read: its own, pinned, managed
Device plain_device(const Device& device);  // CUDA's two kinds are one
Device device_of(nb::handle object);        // as the object says; raises where it does not

// An array in memory, with what keeps the memory alive.
struct Array {
  std::shared_ptr<void> owner;
  char* data = nullptr;
  Device device{};
  std::string dtype;                    // as NumPy names it; the nearest name where NumPy has none
  std::vector<int64_t> shape, strides;  // in elements
  bool read_only = false;
  bool is_copy = false;  // that another library made to share it

  Tensor tensor() const;  // points into this
};

// Takes the memory from an object's __dlpack__. With a stream, later work on the stream waits for the object's pending
// work. Passes on the errors of the object's library; raises where the memory does not hold the object's numbers.
Array take(nb::handle object, std::optional<int64_t> stream = std::nullopt);

// Raises TypeError where the object is a torch tensor whose memory does not hold the tensor's numbers.
void check_meaning(nb::handle object);

}  // namespace flatstep::dlpack

namespace flatstep {

// Makes a device current for as long as it lives: libraries answer for the one that is, and export what lies on no
// other.
class OnDevice {
 public:
  OnDevice(const DeviceBackend& backend, int index) : backend_(backend), before_(backend.enter(index)) {}
  ~OnDevice() { backend_.leave(before_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  const DeviceBackend& backend_;
  void* const before_;
};

// "the CPU", "cuda:0", for messages.
std::string name_of(const Device& device);

// Whether an array's library says in C, for all arrays of a type, on which stream it launches its work.
bool has_stream_of_type(nb::handle type);

// The stream on which an array's library launches its work on a device, which is to be current: as its type says in C,
// or else the array itself. Nothing where neither does.
std::optional<void*> current_stream(nb::handle array, const Device& device);

// A stream as DLPack numbers them. The one that others wait for, where it is not known.
int64_t number_of(std::optional<void*> stream);

}  // namespace flatstep
