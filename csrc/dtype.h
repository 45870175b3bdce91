// The dtypes that kernels know, and what each library calls them. Used by the catalogue, by checks and by readers.
#pragma once

#include <cstdint>
#include <string_view>

namespace flatstep {

enum class Dtype : uint8_t { float16, bfloat16, float32, float64, other };

struct DtypeNames {
  std::string_view name;  // NumPy's and ml_dtypes'
  int bytes;
  char buffer_format;  // of Python's buffer protocol, which has none for bfloat16
  uint8_t dlpack_code;
  int xla_type;  // xla::ffi::DataType
};

constexpr DtypeNames known_dtypes[] = {{"float16", 2, 'e', 2, 10},
                                       {"bfloat16", 2, 0, 4, 16},
                                       {"float32", 4, 'f', 2, 11},
                                       {"float64", 8, 'd', 2, 12}};  // in the order of Dtype

constexpr std::string_view name_of(Dtype dtype) {
  return dtype == Dtype::other ? "another dtype" : known_dtypes[size_t(dtype)].name;
}

constexpr int bytes_of(Dtype dtype) { return dtype == Dtype::other ? 1 : known_dtypes[size_t(dtype)].bytes; }

// The dtype whose names fit; Dtype::other where none does.
template <class Fits>
constexpr Dtype find_dtype(const Fits& fits) {
  for (size_t i = 0; i < size_t(Dtype::other); ++i) {
    if (fits(known_dtypes[i])) return Dtype(i);
  }
  return Dtype::other;
}

constexpr Dtype dtype_named(std::string_view name) {
  return find_dtype([=](const DtypeNames& known) { return known.name == name; });
}

}  // namespace flatstep
