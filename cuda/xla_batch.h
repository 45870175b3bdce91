// A step that XLA hands over, on a device: its numbers stay there unread. For the handlers only: xla.cpp's, and that of
// the tests' stand-in for a device.
#pragma once

#include "batch_step.h"
#include "bind/read_xla.h"

namespace flatstep::device {

// A kind of device, and one of these.
struct XlaDevice {
  Runtime& runtime;
  Kernels kernels;
  LayOut lay_out;
  int index;
};

// Throws std::invalid_argument before anything is launched.
void carry_out(const XlaDevice& device, const XlaStep& step, void* stream);

// How many bytes the last result of such a step has: of leaves with these numbers of elements in every entry of a
// batch, their dtypes given by name. Throws std::invalid_argument where there is no kernel for them.
int64_t xla_workspace_bytes(Kernels kernels, std::string_view rule, std::string_view written, std::string_view grad,
                            const std::vector<std::string_view>& state, const std::vector<int64_t>& counts,
                            int64_t entries);

}  // namespace flatstep::device
