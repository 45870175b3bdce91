// Choosing a target. See targets.h.
#include "targets.h"

#include <cstdlib>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace flatstep {

namespace {

const char* forced_name() {
  const char* name = std::getenv("FLATSTEP_TARGET");
  return name && *name ? name : nullptr;
}

}  // namespace

bool supports_f16c() {
#if defined(__x86_64__)
  static const bool supports = [] {  // asked once: a virtual machine takes microseconds to answer
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
  }();
  return supports;
#else
  return false;
#endif
}

std::vector<const Target*> targets() {
  std::vector<const Target*> runnable;
  for (const BuiltTarget& built : built_targets()) {
    if (built.missing_feature().empty()) runnable.push_back(built.target);
  }
  return runnable;
}

const Target& chosen_target() {
  const std::vector<const Target*> runnable = targets();
  const char* name = forced_name();
  if (!name) return *runnable.front();
  std::string names;
  for (const Target* target : runnable) {
    if (target->name == std::string_view(name)) return *target;
    names += (names.empty() ? "" : ", ") + std::string(target->name);
  }
  std::string why = "it is not part of this build";
  for (const BuiltTarget& built : built_targets()) {
    if (built.target->name == std::string_view(name))
      why = "it needs " + std::string(built.missing_feature()) + ", which this processor lacks";
  }
  throw std::runtime_error("FLATSTEP_TARGET=" + std::string(name) + " cannot run here: " + why +
                           "; unset it or name one of: " + names);
}

bool target_is_forced() { return forced_name() != nullptr; }

}  // namespace flatstep
