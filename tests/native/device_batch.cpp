// A step whose tables are made on the device, on the device that the host plays (stand_in.h): for any leaves and
// entries the bits of the baseline, in three launches and no memory but what is lent, also where a graph is replayed.
#include "batch_step.h"
#include "stand_in.h"
#include "targets.h"
#include "twins.h"

namespace flatstep::testing {

namespace {

// Leaves of one layout in every entry of a batch, a stream after the other, and numbers that differ among entries.
class Leaves {
 public:
  Leaves(int rule, int layout, const std::vector<int64_t>& lengths, int64_t entries, uint64_t seed);

  void change_numbers();
  void step_here();
  void step_there(StandIn& runtime);
  std::vector<std::string> images() const;

 private:
  struct Stream {
    Block memory;
    int item_bytes;
    char* at(int64_t first) const { return memory.data() + first * item_bytes; }
  };

  void add_stream(int item_bytes, bool with_signs);

  int rule_, layout_;
  std::vector<int64_t> lengths_;
  int64_t entries_, elements_ = 0;
  Random random_;
  std::vector<Stream> streams_;  // parameters, gradients, state
  Scalars fixed_;
  std::vector<int32_t> counts_;
  std::vector<float> rates_;
  std::vector<double> scales_;
  std::unique_ptr<Block> workspace_;
};

Leaves::Leaves(int rule, int layout, const std::vector<int64_t>& lengths, int64_t entries, uint64_t seed)
    : rule_(rule), layout_(layout), lengths_(lengths), entries_(entries), random_(seed) {
  for (const int64_t length : lengths) elements_ += length * entries;
  const LayoutDescription& formats = layouts()[size_t(layout)];
  add_stream(bytes_of(formats.param), true);
  add_stream(bytes_of(formats.grad), true);
  for (const SlotDescription& slot : rules()[size_t(rule)].slots) add_stream(bytes_of(formats.slot(slot.role)), false);
  fixed_ = some_numbers(rules()[size_t(rule)], random_);
  counts_.resize(size_t(entries));
  rates_.resize(size_t(entries));
  scales_.resize(size_t(entries));
  change_numbers();
}

void Leaves::add_stream(int item_bytes, bool with_signs) {
  streams_.push_back({Block(elements_ * item_bytes), item_bytes});
  streams_.back().memory.fill(random_, with_signs);
}

void Leaves::change_numbers() {
  for (size_t entry = 0; entry < counts_.size(); ++entry) {
    counts_[entry] = int32_t(random_.between(1, 100));
    rates_[entry] = float(random_.between(1, 100)) / 128;
    scales_[entry] = double(random_.between(1, 100)) / 50;
  }
}

void Leaves::step_here() {
  std::vector<Scalars> rows(counts_.size(), fixed_);
  for (size_t entry = 0; entry < rows.size(); ++entry) {
    rows[entry].count = counts_[entry];
    rows[entry].learning_rate = rates_[entry];
    rows[entry].grad_scale = scales_[entry];
  }
  std::vector<Segment> segments;
  int64_t first = 0;
  for (const int64_t length : lengths_) {
    for (int64_t entry = 0; entry < entries_; ++entry, first += length) {
      Segment segment{first, length, entry, streams_[0].at(first), streams_[1].at(first), nullptr, {}};
      for (size_t slot = 2; slot < streams_.size(); ++slot) segment.state[slot - 2] = streams_[slot].at(first);
      segments.push_back(segment);
    }
  }
  const Call call{segments.data(), int64_t(segments.size()), rows.data()};
  targets().back()->kernels[rule_][layout_](call, 0, elements_);
}

void Leaves::step_there(StandIn& runtime) {
  device::Batch batch{};
  batch.entries = entries_;
  batch.scalars = fixed_;
  batch.counts = counts_.data();
  batch.columns[batch.column_count++] = {{rates_.data(), NumberKind::float32}, 0};
  batch.columns[batch.column_count++] = {{scales_.data(), NumberKind::float64}, 1};
  batch.param_bytes = streams_[0].item_bytes;
  batch.grad_bytes = streams_[1].item_bytes;
  for (size_t slot = 2; slot < streams_.size(); ++slot) batch.state_bytes[slot - 2] = streams_[slot].item_bytes;
  int64_t first = 0;
  for (const int64_t length : lengths_) {
    device::Leaf leaf{length, 0, streams_[0].at(first), streams_[1].at(first), {}};
    for (size_t slot = 2; slot < streams_.size(); ++slot) leaf.state[slot - 2] = streams_[slot].at(first);
    add_leaf(batch, leaf);
    first += length * entries_;
  }
  const device::Launcher launcher(runtime, StandIn::kernels, rule_, 0);
  // Ends with the last table, so that an address sanitizer sees the byte after it.
  workspace_ = std::make_unique<Block>(workspace_bytes(launcher.kernel(layout_), lengths_, entries_));
  step_batch(launcher, StandIn::lay_out, layout_, batch, workspace_->data(), nullptr);
}

std::vector<std::string> Leaves::images() const {
  std::vector<std::string> all;
  for (const Stream& stream : streams_) all.push_back(stream.memory.image());
  return all;
}

std::vector<int64_t> some_lengths(Random& random) {
  return random_lengths(random, random.pick<int64_t>({1, 2, 7, device::most_leaves}));
}

void any_leaves_give_the_bits_of_the_baseline() {
  Random random(1);
  for_every_kernel([&](int rule, int layout) {
    for (int list = 0; list < 10; ++list) {
      const std::vector<int64_t> lengths = some_lengths(random);
      const int64_t entries = random.pick<int64_t>({1, 1, 2, 13});
      const uint64_t seed = random.bits();
      Leaves here(rule, layout, lengths, entries, seed), there(rule, layout, lengths, entries, seed);
      StandIn runtime;
      here.step_here();
      there.step_there(runtime);
      runtime.synchronize();
      check(here.images() == there.images(), "a batch has the bits of the baseline");
      check(runtime.launches == 3, "a batch is three launches");
      check(runtime.allocations + runtime.copies + runtime.waits == 0, "a batch asks for no more than launches");
    }
  });
}

void a_replay_reads_its_numbers() {
  const int rule = find_rule("optimistic_adam");
  StandIn runtime;
  Leaves here(rule, 0, {1000, 3, 5000}, 3, 1), there(rule, 0, {1000, 3, 5000}, 3, 1);
  runtime.begin_capture();
  there.step_there(runtime);
  const StandIn::Graph graph = runtime.end_capture();
  for (int step = 0; step < 4; ++step) {
    here.step_here();
    runtime.replay(graph);
    runtime.synchronize();
    check(here.images() == there.images(), "a replay has the bits of the baseline with the numbers of the moment");
    here.change_numbers();
    there.change_numbers();
  }
}

void too_much_is_refused() {
  const auto refuses = [](int64_t entries, int leaves, int64_t length) {
    device::Batch batch{};
    batch.entries = entries;
    batch.param_bytes = 4;
    try {
      for (int i = 0; i < leaves; ++i) add_leaf(batch, {length, 0, nullptr, nullptr, {}});
    } catch (const std::invalid_argument&) {
      return true;
    }
    return false;
  };
  check(!refuses(1, device::most_leaves, 1) && refuses(1, device::most_leaves + 1, 1), "so many leaves fit");
  check(!refuses(1 << 30, 1, 1) && refuses(1 << 30, 2, 1), "so many tensors fit");
  check(!refuses(1, 1, int64_t(1) << 40) && refuses(1, 1, int64_t(1) << 42), "so many elements fit");
}

}  // namespace

}  // namespace flatstep::testing

int main() {
  using namespace flatstep::testing;
  return run_parts({{"any leaves give the bits of the baseline", any_leaves_give_the_bits_of_the_baseline},
                    {"a replay reads its numbers", a_replay_reads_its_numbers},
                    {"too much is refused", too_much_is_refused}});
}
