// The XLA FFI handler for platform CUDA: all rules and layouts. See xla.h.
#include "xla.h"

#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <exception>
#include <stdexcept>

#include "driver.h"
#include "target.h"
#include "xla_batch.h"

namespace flatstep {

namespace {

namespace ffi = xla::ffi;
namespace nb = nanobind;

ffi::Error step(void* stream, int32_t index, ffi::RemainingArgs args, ffi::RemainingRets rets,
                const XlaAttributes& attributes) {
  try {
    const device::Relaxed mode;  // a kernel may be loaded at its first launch, be that captured or not
    const device::XlaDevice device{device::cuda_runtime(), device::cuda_kernels, device::cuda_lay_out, index};
    const auto copy = [&](void* to, const void* from, size_t bytes) { device::copy_there(to, from, bytes, stream); };
    XlaStep step(attributes, args, rets, copy, true);
    device::carry_out(device, step, stream);
    return ffi::Error::Success();
  } catch (const std::invalid_argument& error) {
    return ffi::Error(ffi::ErrorCode::kInvalidArgument, error.what());
  } catch (const std::exception& error) {
    return ffi::Error(ffi::ErrorCode::kInternal, error.what());
  }
}

// May be captured: it launches kernels, and does nothing else that a replay would miss. Its tables are a result, which
// XLA keeps for it from replay to replay; of memory from ffi::ScratchAllocator a graph would only know where it was.
XLA_FFI_DEFINE_HANDLER(handler, step,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::PlatformStream<void*>>()
                           .Ctx<ffi::DeviceOrdinal>()
                           .RemainingArgs()
                           .RemainingRets()
                           .Attrs<XlaAttributes>(),
                       {ffi::Traits::kCmdBufferCompatible});

int64_t workspace_bytes(std::string_view rule, std::string_view written, std::string_view grad,
                        const std::vector<std::string_view>& state, const std::vector<int64_t>& counts,
                        int64_t entries) {
  return device::xla_workspace_bytes(device::cuda_kernels, rule, written, grad, state, counts, entries);
}

}  // namespace

void add_xla(nb::module_& module) {
  module.attr("xla_handler") = nb::capsule(reinterpret_cast<void*>(handler));
  module.def("xla_workspace_bytes", &workspace_bytes, nb::arg("rule"), nb::arg("written"), nb::arg("grad"),
             nb::arg("state"), nb::arg("counts"), nb::arg("entries"));
}

}  // namespace flatstep
