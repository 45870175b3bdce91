// The extension module flatstep._core.
#include "core_api.h"
#include "device.h"
#include "python.h"
#include "work.h"

namespace {

using namespace flatstep;

std::vector<NormBlock> square_sums(std::span<const ScaledTensor> grads, const GradientNorm::Run& run) {
  GradientNorm norm;
  norm.begin();
  for (const ScaledTensor& grad : grads) norm.add(grad.tensor, grad.scale);
  return norm.sums(chosen_target(), run);
}

double factor(const GradientLimits& limits, double norm) { return limits.factor(norm); }

const CoreAPI api = {&chosen_target, &run_on, &square_sums, &sum_in_pairs, &factor};

}  // namespace

NB_MODULE(_core, module) {
  module.doc() = "flatstep's compiled core: kernels, checks and threads. Use the flatstep package.";
  module.attr("version") = FLATSTEP_VERSION;
  module.attr("_api") = flatstep::nb::capsule(&api, flatstep::core_api_name());
  // What is alive when the interpreter ends is held by others: a hook of torch, say.
  flatstep::nb::set_leak_warnings(false);
  flatstep::nb::exception<flatstep::OutOfDeviceMemory>(module, "OutOfDeviceMemory", PyExc_MemoryError);
  flatstep::bind_catalog(module);
  flatstep::bind_device_memory(module);
  flatstep::bind_device_norms(module);
  flatstep::bind_exclusive(module);
  flatstep::bind_step(module);
  flatstep::bind_torch(module);
  flatstep::bind_norm(module);
  flatstep::bind_trees(module);
}
