// The floating-point mode in which kernels run, and numbers for them are read. Used by work.cpp and front ends.
#pragma once

#if !defined(__x86_64__)
#include <cfenv>
#endif

namespace flatstep {

// Kernels promise the same bits whatever rounding or flush-to-zero mode the caller's thread happens to be in.
class DefaultFloatingPoint {
 public:
  DefaultFloatingPoint(const DefaultFloatingPoint&) = delete;
  DefaultFloatingPoint& operator=(const DefaultFloatingPoint&) = delete;

#if defined(__x86_64__)
  // <cfenv> also saves the x87 unit, where nothing is computed: a quarter of a microsecond, which a small step notices.
  DefaultFloatingPoint() { __builtin_ia32_ldmxcsr(to_nearest_all_masked); }
  ~DefaultFloatingPoint() { __builtin_ia32_ldmxcsr(callers_); }

 private:
  static constexpr unsigned to_nearest_all_masked = 0x1f80;

  unsigned callers_ = __builtin_ia32_stmxcsr();
#else
  DefaultFloatingPoint() {
    std::fegetenv(&callers_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~DefaultFloatingPoint() { std::fesetenv(&callers_); }

 private:
  std::fenv_t callers_;
#endif
};

}  // namespace flatstep
