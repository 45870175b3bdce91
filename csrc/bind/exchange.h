// DLPack's C exchange API as far as we call it: a table of functions that a framework's tensor type offers, which
// describes a tensor in some 50 nanoseconds and takes no reference. The layout is fixed by DLPack 1.3.
#pragma once

#include <cstdint>

namespace flatstep::dlpack {

constexpr uint32_t known_major_version = 1;
constexpr int cpu = 1, cuda = 2;
enum Code : uint8_t { signed_integer = 0, unsigned_integer = 1, floating = 2, brain_floating = 4, complex_number = 5 };

struct Device {
  int32_t type, index;
};

struct DataType {
  uint8_t code, bits;
  uint16_t lanes;
};

struct TensorView {
  void* data;
  Device device;
  int32_t axes;
  DataType dtype;
  int64_t* shape;
  int64_t* strides;  // in elements
  uint64_t byte_offset;
};

struct Header {
  uint32_t major, minor;
  Header* previous;  // an older table
};

struct ExchangeAPI {
  Header header;
  void (*unused[3])();                             // these make and take owning tensors
  int (*describe)(void* object, TensorView* out);  // 0, or a Python error is set
  int (*current_stream)(int32_t device_type, int32_t device, void** out);
};

}  // namespace flatstep::dlpack
