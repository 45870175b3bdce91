// The floating-point mode in which kernels run, and numbers for them are read. Used by work.cpp and front ends.
#pragma once

#include <cfenv>

namespace flatstep {

// Kernels promise the same bits whatever rounding or flush-to-zero mode the caller's thread happens to be in.
class DefaultFloatingPoint {
 public:
  DefaultFloatingPoint() {
    std::fegetenv(&callers_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~DefaultFloatingPoint() { std::fesetenv(&callers_); }
  DefaultFloatingPoint(const DefaultFloatingPoint&) = delete;
  DefaultFloatingPoint& operator=(const DefaultFloatingPoint&) = delete;

 private:
  std::fenv_t callers_;
};

}  // namespace flatstep
