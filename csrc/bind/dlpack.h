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
  void (*unused[3])();                             // these make and take owning tensors
  int (*describe)(void* object, TensorView* out);  // 0, or a Python error is set
  int (*current_stream)(int32_t device_type, int32_t device, void** out);
};

// The table in a capsule, in the version that we know; null where it has none. Raises for other objects.
const ExchangeAPI* exchange_api_in(nb::handle capsule);

// That of an object's type; null where it offers none.
const ExchangeAPI* exchange_api_of(nb::handle type);

// The tensor where it lies now, as its framework describes it; shape and strides belong to the object. False where the
// framework cannot describe it (a sparse tensor), where no kernel knows the dtype, and where numbers have no memory.
bool describe(const ExchangeAPI& api, nb::handle object, Tensor& out);

Dtype dtype_of(const DataType& dtype);       // Dtype::other for what kernels do not know
std::string name_of(const DataType& dtype);  // as NumPy has it, or the nearest, for messages
DataType data_type_of(Dtype dtype);
bool is_host(const Device& device);         // memory that the processor may read: its own, pinned, managed
Device plain_device(const Device& device);  // CUDA's two kinds are one
Device device_of(nb::handle object);        // as the object says; raises where it does not

// The memory in a capsule, with what keeps it alive.
struct Taken {
  std::shared_ptr<void> owner;
  TensorView view{};
  bool read_only = false;
  bool is_copy = false;  // that the other library made
};

// Takes the memory from an object's __dlpack__. With a stream, later work on the stream waits for the object's pending
// work. Passes on the errors of the object's library.
Taken take(nb::handle object, std::optional<int64_t> stream = std::nullopt);

// In elements, also where the view leaves them out.
std::vector<int64_t> strides_of(const TensorView& view);

// A capsule for another library.
nb::object capsule_of(const TensorView& view, std::shared_ptr<void> owner, bool is_versioned);

// Why a torch tensor's memory does not hold the tensor's numbers; empty where it does, and for other objects.
std::string hidden_meaning(nb::handle object);

}  // namespace flatstep::dlpack

namespace flatstep {

// Makes a device current for as long as it lives: libraries answer for the one that is, and export what lies on no
// other.
class OnDevice {
 public:
  OnDevice(const DeviceBackend& backend, int index) : backend_(backend), before_(backend.use(index)) {}
  ~OnDevice();
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  const DeviceBackend& backend_;
  int before_;
};

// "the CPU", "cuda:0", for messages.
std::string name_of(const Device& device);

// The stream on which an array's library launches its work on a device, which is to be current: as its type says in C,
// or else the array itself. Nothing where neither does.
std::optional<void*> current_stream(nb::handle array, const Device& device);

// A stream as DLPack numbers them. The one that others wait for, where it is not known.
int64_t number_of(std::optional<void*> stream);

}  // namespace flatstep
