// Tensors as tiles, past what 32 bits count: some of the tiles of one tensor through its kernel, and the table of all
// tiles by arithmetic alone.
#include <sys/mman.h>

#include <algorithm>

#include "plain_step.h"
#include "stand_in.h"
#include "testing.h"

namespace flatstep::testing {

namespace {

// Memory of which only what is touched exists.
class Vast {
 public:
  explicit Vast(int64_t bytes)
      : bytes_(size_t(bytes)),
        memory_(mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {
    if (memory_ == MAP_FAILED) throw std::bad_alloc();
  }
  Vast(const Vast&) = delete;
  Vast& operator=(const Vast&) = delete;
  ~Vast() { munmap(memory_, bytes_); }
  char* data() const { return static_cast<char*>(memory_); }

 private:
  size_t bytes_;
  void* memory_;
};

struct Range {
  int64_t first, last;
};

constexpr int64_t item = 2, phase = 5, streams = 4;  // bfloat16 throughout: param, grad, mu, nu
constexpr int tile_elements = device::tile_elements(item);
constexpr int64_t middle = int64_t{1} << 31, beyond = middle + 4 * tile_elements + 225;  // elements

// Those at the tensor's begin, before and after 2^31 elements, at its end; and what they cover.
constexpr int32_t middle_tile = int32_t(middle / tile_elements);
constexpr int32_t some_tiles[] = {0, middle_tile - 1, middle_tile, middle_tile + 1, middle_tile + 4};
constexpr Range covered[] = {{0, tile_elements - phase},
                             {middle - tile_elements - phase, middle + 2 * tile_elements - phase},
                             {middle + 4 * tile_elements - phase, beyond}};
constexpr Range windows[] = {{-phase, 2 * tile_elements}, {middle - 3 * tile_elements, beyond + 64}};  // to look at

// The elements of each stream in the windows, end to end.
std::vector<std::string> look_at(char* const (&begins)[streams]) {
  std::vector<std::string> all;
  for (const char* begin : begins) {
    for (const Range& window : windows) all.emplace_back(begin + window.first * item, begin + window.last * item);
  }
  return all;
}

void fill(char* const (&begins)[streams], Random& random) {
  for (char* begin : begins) {
    for (const Range& window : windows) {
      Block numbers((window.last - window.first) * item);
      numbers.fill(random, begin == begins[0] || begin == begins[1]);
      std::memcpy(begin + window.first * item, numbers.data(), size_t(numbers.bytes()));
    }
  }
}

void sweep_some_tiles(int rule, int layout, const Scalars& scalars, char* const (&begins)[streams]) {
  const device::Kernel& kernel = StandIn::kernels[rule][layout];
  StandIn runtime;
  const device::Row row{0, {}, 1};
  Block coefficients(kernel.coefficient_bytes);
  kernel.launch_preparation({&row, 1, &scalars, nullptr, 0, coefficients.data(), nullptr}, nullptr);
  std::vector<device::Tile> tiles;
  for (const int32_t index : some_tiles) tiles.push_back({0, index});
  const device::Segment segment{beyond, begins[0], {begins[2], begins[3]}, 0, 0};
  const device::Gradient gradient{begins[1], -1};
  kernel.launch_sweep({tiles.data(), int64_t(tiles.size()), &segment, &gradient, nullptr, coefficients.data(), nullptr},
                      nullptr);
  runtime.synchronize();
}

// In packs, with gradients that lie as parameters do and with others.
void one_tensor_may_have_more_than_2_31_elements() {
  const int rule = find_rule("adam"), layout = find_layout(Dtype::bfloat16, Dtype::bfloat16, Dtype::bfloat16);
  check(device::tiles_of(beyond, phase, tile_elements) == some_tiles[4] + 1,
        "the last of the tiles is the tensor's last");
  Random random(1);
  const Vast memory((streams * (beyond + 4096) + 8192) * item);
  for (const int64_t grad_phase : {phase, phase + 1}) {
    char* begins[streams];
    for (int64_t i = 0; i < streams; ++i) {
      const int64_t first = i * (beyond + 4096) / device::phases * device::phases;
      begins[i] = memory.data() + (first + (i == 1 ? grad_phase : phase)) * item;
    }
    fill(begins, random);
    const Scalars scalars = some_numbers(rules()[size_t(rule)], random);
    const auto before = look_at(begins);
    sweep_some_tiles(rule, layout, scalars, begins);
    const auto after = look_at(begins);
    check(before != after, "tiles change something");
    size_t k = 0;
    for (char* begin : begins) {
      for (const Range& window : windows) {
        std::memcpy(begin + window.first * item, before[k].data(), before[k].size());
        ++k;
      }
    }
    for (const Range& range : covered) {
      for (int64_t i = range.first; i < range.last; ++i) {
        void* const state[] = {begins[2] + i * item, begins[3] + i * item};
        plain_step(rule, layout, scalars, begins[0] + i * item, begins[1] + i * item, state);
      }
    }
    check(look_at(begins) == after, "a tile is the plain step of its elements, and nothing else");
  }
}

// 100,000 small tensors and a large one: each element is in one tile, once.
void tiles_cover_every_element_once() {
  Random random(2);
  std::vector<int64_t> counts = {middle + 5};
  for (int i = 0; i < 100'000; ++i) counts.push_back(random.between(1, 4000));
  std::swap(counts[0], counts[50'000]);
  std::vector<int> phase_of_segment;
  std::vector<device::Tile> tiles;
  int64_t expected = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    phase_of_segment.push_back(int(random.below(device::phases)));
    expected += device::tiles_of(counts[i], phase_of_segment[i], tile_elements);
    device::add_tiles(tiles, int32_t(i), counts[i], phase_of_segment[i], tile_elements);
  }
  check(int64_t(tiles.size()) == expected, "tiles are as many as was said");
  std::vector<int64_t> done(counts.size());
  for (const device::Tile& tile : tiles) {
    const auto segment = size_t(tile.segment);
    const int64_t begin = device::tile_begin(tile, phase_of_segment[segment], tile_elements);
    check(std::max<int64_t>(begin, 0) == done[segment], "a tile begins where the one before it ends");
    done[segment] = std::min(begin + tile_elements, counts[segment]);
    check(done[segment] > begin, "no tile is empty");
  }
  check(done == counts, "tiles end where their tensors do");
}

// A warp has a tile, and up to eight warps share one where the device has room for them all.
void few_tiles_are_shared() {
  constexpr int multiprocessors = 132;
  for (const auto& [tiles, bits] : {std::pair<int64_t, int>{1, 8},
                                    {98, 8},
                                    {264, 8},
                                    {265, 7},
                                    {977, 6},
                                    {1056, 6},
                                    {1057, 5},
                                    {int64_t{1} << 40, 5}})
    check(device::lane_bits_for(tiles, multiprocessors) == bits, "all that share tiles have room at once");
}

}  // namespace

}  // namespace flatstep::testing

int main() {
  using namespace flatstep::testing;
  return run_parts({{"one tensor may have more than 2^31 elements", one_tensor_may_have_more_than_2_31_elements},
                    {"tiles cover every element once", tiles_cover_every_element_once},
                    {"few tiles are shared", few_tiles_are_shared}});
}
