// The targets that were built, which of them this machine can run, and which one is used.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "call.h"

namespace flatstep {

// A row of the table that CMake writes (targets.table.cpp.in).
struct BuiltTarget {
  const Target* target;
  std::string_view flags;                 // it was compiled with
  std::string_view features;              // it needs of the processor, blank between them
  std::string_view (*missing_feature)();  // the first that this processor lacks; empty if none
};

bool supports_f16c();  // what __builtin_cpu_supports would say, but clang 14 refuses the name

struct BuildInfo {
  std::string_view compiler, flags;
};

extern const std::vector<BuiltTarget>& built_targets();  // best first
extern const BuildInfo build_info;

// Those that this machine can run, best first; never empty.
std::vector<const Target*> targets();

// The one to use: that named by the environment variable FLATSTEP_TARGET, else the best.
// Throws std::runtime_error where the name is unknown or needs what this machine lacks.
const Target& chosen_target();

// Whether FLATSTEP_TARGET names the target to use.
bool target_is_forced();

}  // namespace flatstep
