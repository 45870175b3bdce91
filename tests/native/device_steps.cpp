// The laws of a device's steps, on the device that the host plays (stand_in.h): the bits of the CPU, one launch a
// layout, no waiting, no byte uploaded twice, nothing half done.
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "model.h"
#include "plain_step.h"
#include "queue.h"
#include "stand_in.h"

namespace flatstep::testing {

namespace {

using device::Queue;

// A step of a model on the device: each row of scalars makes its coefficients.
struct OnDevice {
  std::vector<Row> rows;
  std::vector<Scalars> scalars;
  std::vector<Traced> traced;
  const float* skip = nullptr;

  explicit OnDevice(const Model& model) : scalars(model.scalars()) {
    for (size_t i = 0; i < scalars.size(); ++i) rows.push_back({int64_t(i), {}});
  }

  DeviceWork work(const std::vector<Job>& jobs) const { return {jobs, rows, scalars, traced, skip, nullptr}; }

  void step(Queue& queue, Model& model) const {
    queue.prepare(work(model.jobs(*targets().back())));
    queue.launch();
  }
};

void step_on_host(Model& model) {
  for (const Job& job : model.jobs(*targets().back())) job.kernel(*job.call, 0, job.elements);
}

std::vector<int64_t> random_lengths(Random& random) {
  const int64_t unit = random.pick<int64_t>({1, 2, 8, 64});  // what they are multiples of, and so how they are aligned
  const int64_t most = random.pick<int64_t>({3, 70, 300, 2500}) / unit + 1;
  std::vector<int64_t> lengths;
  for (int64_t i = random.below(12); i >= 0; --i) lengths.push_back(random.below(most) * unit);
  return lengths;
}

// Calls f with every rule and layout that there are models of.
template <class F>
void for_every_kernel(F&& f) {
  for (int rule = 0; rule < int(rules().size()); ++rule) {
    for (int layout = 0; layout < int(layouts().size()); ++layout) {
      if (Model::make(rule, layout, {1}, 0)) f(rule, layout);
    }
  }
}

void any_tensors_give_the_bits_of_the_cpu() {
  Random random(1);
  for_every_kernel([&](int rule, int layout) {
    for (int list = 0; list < 60; ++list) {
      const std::vector<int64_t> lengths = random_lengths(random);
      const uint64_t seed = random.bits();
      const auto here = Model::make(rule, layout, lengths, seed), there = Model::make(rule, layout, lengths, seed);
      StandIn runtime;
      {
        Queue queue(runtime, StandIn::kernels, rule, 0);
        for (int step = 0; step < 2; ++step) {
          step_on_host(*here);
          OnDevice(*there).step(queue, *there);
        }
      }
      check(here->images() == there->images(), "a device's step has the bits of the CPU's");
    }
  });
}

}  // namespace

}  // namespace flatstep::testing

int main() {
  using namespace flatstep::testing;
  return run_parts({{"any tensors give the bits of the CPU", any_tensors_give_the_bits_of_the_cpu}});
}
