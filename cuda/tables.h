// Tables on the host, as bytes one after the other. For queue.cpp and norm_tables.cpp.
#pragma once

#include <cstring>
#include <vector>

#include "call.h"
#include "staging.h"

namespace flatstep::device {

// Appends an array and says where it begins.
template <class T>
size_t append(Bytes& bytes, const T* from, size_t count) {
  constexpr size_t alignment = 16;
  const size_t begin = (bytes.size() + alignment - 1) / alignment * alignment;
  bytes.resize(begin + count * sizeof(T));
  if (count > 0) std::memcpy(bytes.data() + begin, from, count * sizeof(T));
  return begin;
}

template <class T>
size_t append(Bytes& bytes, const std::vector<T>& from) {
  return append(bytes, from.data(), from.size());
}

inline int64_t append_walk(std::vector<int64_t>& walks, const Walk* walk) {
  if (!walk) return -1;
  const auto begin = int64_t(walks.size());
  walks.push_back(walk->axes);
  walks.insert(walks.end(), walk->shape, walk->shape + walk->axes);
  walks.insert(walks.end(), walk->strides, walk->strides + walk->axes);
  return begin;
}

}  // namespace flatstep::device
