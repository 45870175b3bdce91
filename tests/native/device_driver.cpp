// What driver.cpp asks of CUDA, by a CUDA that only notes it (fake_cuda.h): on which device, in which pairs, and what
// it gives up where a call fails. Built where CUDA's headers are.
#include <thread>

#include "device.h"
#include "driver.h"
#include "fake_cuda.h"
#include "testing.h"

namespace flatstep::testing {

namespace {

device::Runtime& runtime() { return device::cuda_runtime(); }

void begin() { fake_cuda = {}; }

// As cudaSetDevice would not: it made a context on device 0 for a thread that had used none.
void the_context_of_a_thread_is_restored() {
  for (const std::optional<int> own : {std::optional<int>(), std::optional<int>(0), std::optional<int>(1)}) {
    begin();
    fake_cuda.context = own;
    {
      const device::CurrentDevice outer(runtime(), 1);
      check(fake_cuda.context == 1, "the device is current");
      {
        const device::CurrentDevice inner(runtime(), 2);
        check(fake_cuda.context == 2, "another one is current");
      }
      check(fake_cuda.context == 1, "the device is current again");
    }
    check(fake_cuda.context == own, "what was current is again");
    check(!fake_cuda.contexts.contains(0), "no context is made on the first device");
  }
}

void memory_is_released_as_it_was_allocated() {
  for (const bool has_pools : {true, false}) {
    begin();
    fake_cuda.has_pools = has_pools;
    const device::CurrentDevice current(runtime(), 1);
    void* const memory = runtime().allocate(8, nullptr);
    runtime().release(memory, nullptr);
    runtime().release_lasting(runtime().allocate(8, nullptr));
    runtime().release_pinned(runtime().allocate_pinned(8));
    const std::string made = has_pools ? "cudaMallocAsync" : "cudaMalloc";
    const std::vector<std::string> expected = {
        made, has_pools ? "cudaFreeAsync" : "cudaFree", made, "cudaFree", "cudaHostAlloc", "cudaFreeHost"};
    check(fake_cuda.calls == expected, "without pools there is other memory");
    check(fake_cuda.memory.empty(), "nothing is left");
    check(!fake_cuda.is_forbidden, "no capture is disturbed");
  }
}

void a_graph_keeps_its_memory() {
  begin();
  for (const int index : {0, 1, 1}) {
    const device::CurrentDevice current(runtime(), index);
    runtime().allocate_for_graph(8, nullptr);
  }
  const auto release_on = [](int index) {
    const device::CurrentDevice current(runtime(), index);
    runtime().release_dropped();
  };
  for (const int index : {0, 1}) release_on(index);
  check(fake_cuda.memory.size() == 3, "memory stays as long as the graph");
  std::thread([] { fake_cuda.end_graph(); }).join();
  check(fake_cuda.memory.size() == 3, "the graph's end calls nothing");
  release_on(1);
  check(fake_cuda.memory.size() == 1, "memory of the current device is released");
  release_on(0);
  release_on(0);
  check(fake_cuda.memory.empty(), "and that of the other one, once");
  check(!fake_cuda.is_forbidden, "no capture is disturbed");
}

void a_graph_that_cannot_have_memory_leaves_none() {
  for (const char* call : {"cudaMalloc", "cudaUserObjectCreate", "cudaGraphRetainUserObject"}) {
    begin();
    fake_cuda.fails = call;
    const device::CurrentDevice current(runtime(), 1);
    bool is_told = false;
    try {
      runtime().allocate_for_graph(8, nullptr);
    } catch (const OutOfDeviceMemory&) {
      is_told = true;
    }
    check(is_told, "a failure is passed on");
    fake_cuda.end_graph();
    runtime().release_dropped();
    check(fake_cuda.memory.empty(), "nothing is left");
  }
}

}  // namespace

}  // namespace flatstep::testing

int main() {
  using namespace flatstep::testing;
  return run_parts({{"the context of a thread is restored", the_context_of_a_thread_is_restored},
                    {"memory is released as it was allocated", memory_is_released_as_it_was_allocated},
                    {"a graph keeps its memory", a_graph_keeps_its_memory},
                    {"a graph that cannot have memory leaves none", a_graph_that_cannot_have_memory_leaves_none}});
}
