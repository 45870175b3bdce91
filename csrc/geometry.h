// How arrays lie in memory: plain descriptions of them, and the questions that checks ask. Knows no Python.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace flatstep {

// An array as somebody handed it in. Shape and strides belong to the owner.
struct Array {
  void* data;
  std::string_view dtype;
  int item_bytes;
  int axes;
  const int64_t* shape;
  const int64_t* strides;  // in bytes
  bool read_only;
};

enum class Stream { param, grad };

// An array that cannot be taken, and why. The text goes on from the leaf's name ("has shape ..."); where it speaks of a
// second leaf it says {other}.
struct Refusal {
  Stream stream;
  int64_t leaf;
  std::string text;
  int64_t other = -1;
  bool wrong_type = false;  // of the object or of its numbers
};

// Memory that a step writes, begin <= address < end.
struct Written {
  uintptr_t begin, end;
  int64_t leaf;  // -1 for state
};

// "(2, 3)", for messages.
std::string text(const int64_t* numbers, int count);

// -1 where a shape has more elements than memory has bytes, so that no product of what was counted can overflow.
int64_t element_count(const Array& array);

// The addresses between an array's first and last byte in memory. Throws Refusal where they lie beyond all memory.
Written extent(const Array& array, Stream stream, int64_t leaf);

// Whether an element of an array of that extent, and not just the extent, has bytes in what is written.
bool touches(const Array& array, const Written& extent, const Written& written);

bool is_aligned(const Array& array);  // to its item size, every element of it

// The axes longer than 1, outermost in memory first.
std::vector<int> memory_order(const Array& array);

// Whether the elements fill their extent without gaps, each once, in increasing order.
bool is_dense(const Array& array, const std::vector<int>& order);

}  // namespace flatstep
