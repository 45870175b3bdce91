// The extension module flatstep._cuda: the devices of CUDA, for the front ends of the core. It imports without a
// driver.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include "bind/core_api.h"
#include "driver.h"
#include "queue.h"
#include "target.h"
#include "xla.h"

namespace flatstep {

namespace {

namespace nb = nanobind;

constexpr int32_t dlpack_cuda = 2;

std::unique_ptr<DeviceQueue> make_queue(int rule, int index) {
  return std::make_unique<device::Queue>(device::cuda_runtime(), device::cuda_kernels, rule, index,
                                         &device::cuda_shared);
}

void* enter(int index) { return device::cuda_runtime().make_current(index); }
void leave(void* before) { device::cuda_runtime().restore(before); }

constexpr DeviceBackend backend = {dlpack_cuda, &make_queue, &enter, &leave};

// [(name, (major, minor))]
nb::list devices() {
  nb::list found;
  for (const device::CudaDevice& device : device::cuda_devices())
    found.append(nb::make_tuple(device.name, nb::make_tuple(device.major, device.minor)));
  return found;
}

}  // namespace

}  // namespace flatstep

NB_MODULE(_cuda, module) {
  namespace nb = nanobind;
  module.doc() = "flatstep's steps on CUDA devices. Use flatstep.torch and flatstep.jax.";
  flatstep::import_core_api();  // only beside the core that it was built with
  module.attr("version") = FLATSTEP_VERSION;
  module.attr("architectures") = FLATSTEP_CUDA_ARCHITECTURES;
  module.def("devices", &flatstep::devices, nb::sig("def devices() -> list[tuple[str, tuple[int, int]]]"));
  module.attr("backend") = nb::capsule(&flatstep::backend, flatstep::device_backend_name);
  if constexpr (FLATSTEP_HAS_XLA) flatstep::add_xla(module);
}
