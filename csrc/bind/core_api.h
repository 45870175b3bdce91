// What the extension module _core offers to its siblings in a capsule, so that none of them links a kernel twice. For
// csrc/bind and the siblings only.
#pragma once

#include <nanobind/nanobind.h>

#include <string>

#include "describe.h"
#include "device.h"
#include "norm.h"
#include "targets.h"
#include "work.h"

namespace flatstep {

// A gradient, and what its numbers are multiplied by.
struct ScaledTensor {
  Tensor tensor;
  double scale;
};

struct CoreAPI {
  const Target& (*chosen_target)();
  void (*run_on)(std::span<const Job> jobs, int pool_threads, const Schedule& schedule);
  // The sums of squares of gradients, none of them empty. See norm.h, as for the others.
  std::vector<NormBlock> (*square_sums)(std::span<const ScaledTensor> grads, const GradientNorm::Run& run);
  NormBlock (*sum_in_pairs)(std::span<const NormBlock> sums);
  double (*factor)(const GradientLimits& limits, double norm);
};

// The capsule's name. Sizes and counts tell builds of one version apart whose modules would misread each other.
inline const char* core_api_name() {
  static const std::string name = "version " FLATSTEP_VERSION ", build " + std::to_string(sizeof(Scalars)) + "." +
                                  std::to_string(sizeof(Segment)) + "." + std::to_string(sizeof(DeviceWork)) + "." +
                                  std::to_string(rules().size()) + "." + std::to_string(layouts().size()) + "." +
                                  std::to_string(sizeof(CoreAPI));
  return name.c_str();
}

// Raises ImportError where _core is of another version or build.
inline const CoreAPI& import_core_api() {
  namespace nb = nanobind;
  const nb::object capsule = nb::getattr(nb::module_::import_("flatstep._core"), "_api", nb::none());
  if (PyCapsule_IsValid(capsule.ptr(), core_api_name()))
    return *static_cast<const CoreAPI*>(PyCapsule_GetPointer(capsule.ptr(), core_api_name()));
  const char* const found = PyCapsule_CheckExact(capsule.ptr()) ? PyCapsule_GetName(capsule.ptr()) : nullptr;
  const std::string text = std::string("this part of flatstep is ") + core_api_name() + ", its core " +
                           (found ? found : "of an unknown version") + "; reinstall flatstep";
  throw nb::import_error(text.c_str());
}

}  // namespace flatstep
