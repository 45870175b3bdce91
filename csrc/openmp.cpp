// Finds OpenMP by name among what the process has loaded. See openmp.h.
#include "openmp.h"

#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <thread>

#ifdef __linux__
#include <sched.h>
#endif

namespace flatstep {

namespace {

template <class Function>
bool find(void* library, const char* name, Function*& function) {
  function = reinterpret_cast<Function*>(dlsym(library, name));
  return function != nullptr;
}

bool find(void* library, OpenMP& openmp) {
  return find(library, "GOMP_parallel", openmp.parallel) && find(library, "omp_get_thread_num", openmp.thread_num);
}

// torch makes the symbols of its runtime global. A library that does not has at least a usual name.
bool find(OpenMP& openmp) {
  if (find(RTLD_DEFAULT, openmp)) return true;
  for (const char* name : {"libgomp.so.1", "libomp.so.5", "libomp.so", "libiomp5.so", "libomp.dylib"}) {
    void* const library = dlopen(name, RTLD_LAZY | RTLD_NOLOAD);  // never closed, so that it stays
    if (library && find(library, openmp)) return true;
  }
  return false;
}

int processors() {
#ifdef __linux__
  cpu_set_t allowed;  // an error where there are more processors than it holds
  if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0) return CPU_COUNT(&allowed);
#endif
  return int(std::thread::hardware_concurrency());
}

int read_num_threads() {
  const char* const text = std::getenv("OMP_NUM_THREADS");
  const long asked = text ? std::strtol(text, nullptr, 10) : 0;  // of "4,2", for nested regions, the first
  if (asked > 0 && asked <= 1 << 16) return int(asked);
  return std::max(1, processors());
}

}  // namespace

const OpenMP* loaded_openmp() {
  static std::atomic<const OpenMP*> found{nullptr};
  if (const OpenMP* openmp = found.load(std::memory_order_acquire)) return openmp;
  OpenMP looked_up{};
  if (!find(looked_up)) return nullptr;
  static const OpenMP first = looked_up;
  found.store(&first, std::memory_order_release);
  return &first;
}

int openmp_num_threads() {
  static const int threads = read_num_threads();
  return threads;
}

}  // namespace flatstep
