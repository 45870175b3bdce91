// The same steps twice: at baseline on the host, and by a queue on the device that the host plays. For tests only.
#pragma once

#include <array>
#include <memory>
#include <optional>

#include "queue.h"
#include "stand_in.h"
#include "streams.h"

namespace flatstep::testing {

// A number in the device's memory, and what the host takes it for.
struct LateNumber {
  NumberKind kind;
  alignas(8) std::array<char, 8> memory{};
  double value;

  LateNumber(NumberKind kind, double value);
  DeviceNumber on_device() { return {memory.data(), kind}; }
  void set(StandIn& runtime, double to);  // in the order of the stream
};

// The numbers of steps: by value, or in the device's memory.
class Numbers {
 public:
  Numbers(int rule, int64_t rows, Random& random);

  int64_t rows() const { return int64_t(rows_.size()); }
  std::vector<Scalars> scalars;

  void keep_count(int64_t row, NumberKind kind, int64_t so_far);
  LateNumber& trace(int64_t scalars, int32_t number, NumberKind kind, bool is_inverted, double value);
  LateNumber& keep_skip();
  LateNumber* count(int64_t row) { return counts_[size_t(row)].get(); }

  DeviceWork work(const std::vector<Job>& jobs, const std::vector<Scalars>& given, void* stream) const;

  // What the host makes of a step: each row's numbers, its count moved, whether or not a tensor has elements for it.
  // Nothing where it is skipped.
  std::optional<std::vector<Scalars>> step(const std::vector<Scalars>& given);

  std::string images() const;  // all counts

 private:
  std::vector<Row> rows_;
  std::vector<std::unique_ptr<LateNumber>> counts_, values_;  // counts by row, values as traced_
  std::vector<Traced> traced_;
  std::unique_ptr<LateNumber> skip_;
};

// The tensors of one layout in a step.
struct Part {
  int layout;
  std::vector<Segment> segments;
};

// A step as it was when it was taken: a graph's replays go on with it.
struct Step {
  std::vector<Part> here, there;
  std::vector<Scalars> scalars;
};

class Twins {
 public:
  Twins(StandIn& runtime, int rule, std::vector<int> layouts, int64_t tensors, int64_t rows, uint64_t seed);

  Random random;
  Numbers numbers;

  Step take(int percent = 100);  // each tensor with that chance
  void step_here(const Step& step);
  void prepare_there(device::Queue& queue, const Step& step, const FoundNorm* limits = nullptr);

  void step(device::Queue& queue, const Step& step);
  void step(device::Queue& queue) { step(queue, take()); }
  void renew_gradients();

  std::vector<std::string> images_there();
  void check_alike();  // waits for the device

 private:
  StandIn& runtime_;
  int rule_;
  std::vector<Streams> here_, there_;
};

// Calls f with every rule and layout that there is a kernel of.
template <class F>
void for_every_kernel(F&& f) {
  for (int rule = 0; rule < int(rules().size()); ++rule) {
    for (int layout = 0; layout < int(layouts().size()); ++layout) {
      if (has_kernel(rule, layout)) f(rule, layout);
    }
  }
}

}  // namespace flatstep::testing
