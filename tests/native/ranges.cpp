// The law of ranges: however the elements of a call are cut, in whatever order the pieces are carried out, on whichever
// target, the bits are those of one sweep at baseline. Far out, too.
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>

#include "model.h"

namespace flatstep::testing {

namespace {

// Around tiles, cache lines and vectors, past what kernels look ahead, and nothing at all.
const std::vector<int64_t> lengths = {1, 63, 0, 64, 65, 15, 2000, 7, 600};

// Pieces that cover 0 <= i < total, in random order.
std::vector<std::pair<int64_t, int64_t>> random_pieces(Random& random, int64_t total) {
  const int64_t longest = random.pick<int64_t>({3, 64, 100, 5000});
  std::vector<std::pair<int64_t, int64_t>> pieces;
  for (int64_t first = 0; first < total;) {
    const int64_t last = std::min(total, first + random.between(1, longest));
    pieces.insert(pieces.begin() + random.below(int64_t(pieces.size()) + 1), {first, last});
    first = last;
  }
  return pieces;
}

void any_cut_gives_the_same_bits() {
  Random random(1);
  for (int rule = 0; rule < int(rules().size()); ++rule) {
    for (int layout = 0; layout < int(layouts().size()); ++layout) {
      const uint64_t seed = uint64_t(random.below(1000));
      const bool has_tail = seed % 2 == 1;
      const auto whole = Model::make(rule, layout, lengths, seed, has_tail);
      if (!whole) continue;
      const std::vector<std::string> before = whole->images();
      for (const Job& job : whole->jobs(*targets().back())) job.kernel(*job.call, 0, job.elements);
      check(whole->images() != before, "a step changes something");
      for (const Target* target : targets()) {
        for (int cut = 0; cut < 8; ++cut) {
          const auto pieces = Model::make(rule, layout, lengths, seed, has_tail);
          for (const Job& job : pieces->jobs(*target)) {
            for (const auto& [first, last] : random_pieces(random, job.elements)) job.kernel(*job.call, first, last);
          }
          check(pieces->images() == whole->images(), "any cut on any target gives the bits of one sweep at baseline");
        }
      }
    }
  }
}

// The kernels that only move bytes, by which benchmarks measure: no byte beyond their range.
void limits_stay_in_their_range() {
  constexpr int64_t words = 3000;
  Random random(2);
  for (const Target* target : targets()) {
    for (int slots = 0; slots <= max_slots; ++slots) {
      std::vector<Block> whole, pieces;
      Segment segments[2]{};
      for (std::vector<Block>* blocks : {&whole, &pieces}) {
        Random same(uint64_t(slots) + 1);
        Segment& segment = segments[blocks == &pieces];
        segment.count = words;
        for (int i = 0; i < slots + 2; ++i) blocks->emplace_back(words * 4).fill(same, true);
        segment.param = (*blocks)[0].data();
        segment.grad = (*blocks)[1].data();
        for (int slot = 0; slot < slots; ++slot) segment.state[slot] = (*blocks)[size_t(slot) + 2].data();
      }
      target->limits[slots][0]({&segments[0], 1, nullptr}, 0, words);
      for (const auto& [first, last] : random_pieces(random, words))
        target->limits[slots][1]({&segments[1], 1, nullptr}, first, last);
      for (size_t i = 0; i < whole.size(); ++i)
        check(whole[i].image() == pieces[i].image(), "both variants move the same words, however they are cut");
    }
  }
}

constexpr int64_t edge = int64_t{1} << 31;  // elements, more than 32 bits count

// Zeros of float32 that take no memory until they are touched.
class Mapped {
 public:
  explicit Mapped(int64_t count) : bytes_(size_t(count) * sizeof(float)) {
    data_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data_ == MAP_FAILED) throw std::bad_alloc();
  }
  ~Mapped() { munmap(data_, bytes_); }
  Mapped(const Mapped&) = delete;
  Mapped& operator=(const Mapped&) = delete;

  float* data() const { return static_cast<float*>(data_); }
  Tensor tensor(const int64_t& count, const int64_t& stride) const {
    return {data() + (stride < 0 ? (count - 1) * -stride : 0), &count, &stride, 1, Dtype::float32, false, {}, nullptr};
  }

 private:
  size_t bytes_;
  void* data_;
};

// Some parameters, the gradient of each, and their state for a rule of two slots. Gradients may be strided.
struct MappedModel {
  MappedModel(std::vector<int64_t> lengths, int64_t grad_stride) : counts(std::move(lengths)), stride(grad_stride) {
    step.begin();
    for (const int64_t& count : counts) {
      for (int i = 0; i < 3; ++i) tensors.push_back(std::make_unique<Mapped>(count));
      tensors.push_back(std::make_unique<Mapped>(std::max<int64_t>(1, count * std::abs(stride))));
      const std::unique_ptr<Mapped>* const own = &tensors[tensors.size() - 4];
      Parameter parameter{0, own[0]->tensor(count, one), own[3]->tensor(count, stride), {}, 0};
      for (int slot = 0; slot < 2; ++slot) parameter.state[slot] = own[slot + 1]->tensor(count, one);
      parameters.push_back(parameter);
      check(step.add(parameter), "a step takes tensors of any length");
    }
  }

  // Random parameters and gradients for elements of the first tensor.
  void fill(int64_t first, int64_t last) {
    Random random(3);
    for (int64_t i = first; i < last; ++i) {
      static_cast<float*>(parameters[0].param.data)[i] = float(random.between(-1000, 1000)) / 256;
      static_cast<float*>(parameters[0].grad.data)[i * stride] = stride ? float(random.between(-1000, 1000)) / 256 : 2;
    }
  }

  void sweep(const Target& target, int64_t first, int64_t last) {
    for (const Job& job : step.jobs(scalars, target)) job.kernel(*job.call, first, last);
  }

  static constexpr int64_t one = 1;
  const std::vector<int64_t> counts;
  const int64_t stride;
  std::vector<std::unique_ptr<Mapped>> tensors;
  std::vector<Parameter> parameters;
  Random random{4};
  const std::vector<Scalars> scalars{some_numbers(rules()[size_t(find_rule("adam"))], random)};
  Step step{find_rule("adam"), slot_names(find_rule("adam")), {}};
};

// Whether `count` elements of a parameter and its state, from `at` on, are those of another from 0 on.
bool are_same(const Parameter& a, int64_t at, const Parameter& b, int64_t count) {
  const auto same = [&](const Tensor& x, const Tensor& y) {
    return std::memcmp(static_cast<float*>(x.data) + at, y.data, size_t(count) * sizeof(float)) == 0;
  };
  return same(a.param, b.param) && same(a.state[0], b.state[0]) && same(a.state[1], b.state[1]);
}

// Only a range around the edge is swept. Gradients laid out otherwise are read from offsets past it too.
void one_tensor_past_the_edge() {
  constexpr int64_t first = edge - 70, last = edge + 90, count = last - first, around = 100;
  for (const int64_t stride : {1, 2, 0, -1}) {
    MappedModel expected({count}, stride), untouched({around}, 1);
    expected.fill(0, count);
    expected.sweep(*targets().back(), 0, count);
    for (const Target* target : targets()) {
      MappedModel model({edge + 200}, stride);
      model.fill(first, last);
      model.sweep(*target, first, last);
      const Parameter &found = model.parameters[0], &zeros = untouched.parameters[0];
      check(are_same(found, first, expected.parameters[0], count), "elements past 2^31 get the bits of those at 0");
      check(are_same(found, first - around, zeros, around) && are_same(found, last, zeros, around),
            "no other element changes");
    }
  }
}

// The second tensor's elements lie past the edge in the numbering of the step, not in their own.
void many_tensors_past_the_edge() {
  MappedModel model({edge - 20, 100, 100}, 0), expected({100}, 0), untouched({100}, 0);
  for (const Parameter& parameter : model.parameters) *static_cast<float*>(parameter.grad.data) = 2;
  *static_cast<float*>(expected.parameters[0].grad.data) = 2;
  model.sweep(chosen_target(), edge - 30, edge + 100);
  expected.sweep(chosen_target(), 0, 100);
  const std::vector<Parameter>& found = model.parameters;
  const Parameter &want = expected.parameters[0], &zeros = untouched.parameters[0];
  check(are_same(found[0], edge - 30, want, 10) && are_same(found[0], edge - 40, zeros, 10), "the first tensor's end");
  check(are_same(found[1], 0, want, 100), "the second tensor");
  check(are_same(found[2], 0, want, 20) && are_same(found[2], 20, zeros, 80), "the third tensor's begin");
}

// Tells where the machine maps no such lengths, and goes on.
void elements_past_the_edge() {
  try {
    one_tensor_past_the_edge();
    many_tensors_past_the_edge();
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "skipped: this machine does not map memory without reserving it\n");
  }
}

}  // namespace

}  // namespace flatstep::testing

int main() {
  using namespace flatstep::testing;
  return run_parts({{"any cut gives the same bits", any_cut_gives_the_same_bits},
                    {"limits stay in their range", limits_stay_in_their_range},
                    {"elements past 2^31", elements_past_the_edge}});
}
