// A CUDA runtime of nothing but what driver.cpp asks of it: no device, and each call is noted. For device_driver.cpp.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace flatstep::testing {

struct FakeCuda {
  std::optional<int> context;  // the device whose context is current
  std::set<int> contexts;      // devices that have one
  bool has_pools = true;
  std::string fails;               // the call of this name does
  std::vector<std::string> calls;  // those that allocate and release
  std::map<void*, int> memory;     // what is allocated, by the device on which it is
  bool is_relaxed = false;
  bool is_forbidden = false;  // a call was made that disturbs captures

  struct Object {
    void* owned;
    void (*destroy)(void*);
    int references;
  };
  std::vector<Object*> of_graph;

  void end_graph();  // and all that was made of it
};

extern FakeCuda fake_cuda;

}  // namespace flatstep::testing
