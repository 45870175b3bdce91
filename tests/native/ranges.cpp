// The law of ranges: however the elements of a call are cut, in whatever order the pieces are carried out, on whichever
// target, the bits are those of one sweep at baseline.
#include <algorithm>

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
      const auto whole = Model::make(rule, layout, lengths, seed);
      if (!whole) continue;
      const std::vector<std::string> before = whole->images();
      for (const Job& job : whole->jobs(*targets().back())) job.kernel(*job.call, 0, job.elements);
      check(whole->images() != before, "a step changes something");
      for (const Target* target : targets()) {
        for (int cut = 0; cut < 8; ++cut) {
          const auto pieces = Model::make(rule, layout, lengths, seed);
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

}  // namespace

}  // namespace flatstep::testing

int main() {
  using namespace flatstep::testing;
  return run_parts({{"any cut gives the same bits", any_cut_gives_the_same_bits},
                    {"limits stay in their range", limits_stay_in_their_range}});
}
