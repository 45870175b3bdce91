// What the extension module _core lends to its siblings, so that none of them links a kernel twice. For csrc/bind and
// the siblings only.
#pragma once

#include <nanobind/nanobind.h>

#include <string>

#include "describe.h"
#include "targets.h"
#include "work.h"

namespace flatstep {

// Sizes and counts tell builds of one version apart whose modules would misread each other.
struct Build {
  size_t scalars_bytes, segment_bytes, rules, layouts;

  bool operator==(const Build&) const = default;
};

inline Build this_build() { return {sizeof(Scalars), sizeof(Segment), rules().size(), layouts().size()}; }

// The first member stays what and where it is from version to version: whoever reads the others has compared it.
struct Loan {
  const char* version;
  Build build;
  const Target& (*chosen_target)();
  void (*run_on)(std::span<const Job> jobs, int pool_threads, const Schedule& schedule);
};

constexpr const char* loan_name = "flatstep._core.loan";

// Raises ImportError where the module of that name is of another build.
inline const Loan& borrow() {
  namespace nb = nanobind;
  const nb::object capsule = nb::getattr(nb::module_::import_("flatstep._core"), "_loan", nb::none());
  if (!PyCapsule_IsValid(capsule.ptr(), loan_name))
    throw nb::import_error("flatstep's core lends nothing to this part of flatstep; install flatstep anew");
  const auto* loan = static_cast<const Loan*>(PyCapsule_GetPointer(capsule.ptr(), loan_name));
  if (std::string_view(loan->version) != FLATSTEP_VERSION || !(loan->build == this_build())) {
    const std::string text = "this part of flatstep is of version " FLATSTEP_VERSION ", its core of version " +
                             std::string(loan->version) + " or of another build; install flatstep anew";
    throw nb::import_error(text.c_str());
  }
  return *loan;
}

}  // namespace flatstep
