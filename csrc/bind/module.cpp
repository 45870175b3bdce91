// The extension module flatstep._core.
#include "module.h"
#include "device.h"
#include "lending.h"
#include "work.h"

namespace {

const flatstep::Loan loan = {FLATSTEP_VERSION, flatstep::this_build(), &flatstep::chosen_target, &flatstep::run_on};

}  // namespace

NB_MODULE(_core, module) {
  module.doc() = "flatstep's compiled core: kernels, checks and threads. Use the flatstep package.";
  module.attr("version") = FLATSTEP_VERSION;
  module.attr("_loan") = flatstep::nb::capsule(&loan, flatstep::loan_name);
  // Whoever is alive when the interpreter ends is held by somebody else: a hook of torch, say.
  flatstep::nb::set_leak_warnings(false);
  flatstep::nb::exception<flatstep::OutOfDeviceMemory>(module, "OutOfDeviceMemory", PyExc_MemoryError);
  flatstep::bind_catalog(module);
  flatstep::bind_device_memory(module);
  flatstep::bind_exclusive(module);
  flatstep::bind_step(module);
  flatstep::bind_torch(module);
  flatstep::bind_trees(module);
}
