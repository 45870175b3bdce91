// The law of conversions: the kernels of every target read every number of a 16-bit format, and round a float32 to it
// on each side of every boundary, as the format's own load and store do. Any NaN is as good as another.
// `conversions all` rounds every float32, which takes minutes.
#include <string_view>

#include "blocks.h"
#include "formats/bf16.h"
#include "formats/f16.h"
#include "targets.h"
#include "testing.h"

#define FLATSTEP_TARGET(name)                               \
  namespace flatstep::name {                                \
  extern const testing::BlockConversions block_conversions; \
  }
#include "built_targets.h"
#undef FLATSTEP_TARGET

namespace flatstep::testing {

namespace {

struct BuiltConversions {
  const char* name;
  const BlockConversions& conversions;
};

constexpr BuiltConversions built[] = {
#define FLATSTEP_TARGET(name) {#name, name::block_conversions},
#include "built_targets.h"
#undef FLATSTEP_TARGET
};

// What this machine can run, of one format.
std::vector<const BlockConversion*> conversions_of(std::string_view format) {
  std::vector<const BlockConversion*> found;
  for (const Target* target : targets()) {
    for (const BuiltConversions& of_target : built) {
      if (std::string_view(of_target.name) != target->name) continue;
      for (const BlockConversion& conversion : of_target.conversions) {
        if (conversion.format == format) found.push_back(&conversion);
      }
    }
  }
  check(found.size() == 2 * targets().size(), "each target has two kinds of block");
  return found;
}

template <class Format>
void check_reads() {
  constexpr int64_t count = 1 << 16;
  std::vector<uint16_t> numbers(count);
  for (int64_t i = 0; i < count; ++i) numbers[size_t(i)] = uint16_t(i);
  const typename Format::Tile tile(numbers.data(), 0);
  std::vector<float> read(count);
  for (const BlockConversion* conversion : conversions_of(Format::name)) {
    conversion->read(numbers.data(), read.data(), count);
    for (int k = 0; k < count; ++k) {
      const float expected = tile.load(k), found = read[size_t(k)];
      check(float_to_bits(found) == float_to_bits(expected) || (found != found && expected != expected),
            "a target reads what the format does");
    }
  }
}

template <class Format>
void check_writes(const std::vector<float>& values) {
  const auto count = int64_t(values.size());
  std::vector<uint16_t> expected(values.size()), written(values.size());
  const typename Format::Tile tile(expected.data(), 0);
  for (int k = 0; k < count; ++k) tile.store(k, values[size_t(k)]);
  const auto is_nan = [](uint16_t number) {
    const float value = typename Format::Tile(&number, 0).load(0);
    return value != value;
  };
  for (const BlockConversion* conversion : conversions_of(Format::name)) {
    conversion->write(values.data(), written.data(), count);
    if (written == expected) continue;
    for (size_t k = 0; k < values.size(); ++k) {
      check(written[k] == expected[k] || (is_nan(written[k]) && is_nan(expected[k])),
            "a target rounds as the format does");
    }
  }
}

void targets_read_as_formats_do() {
  check_reads<F16>();
  check_reads<BF16>();
}

// Both formats round `count` float32s at a time, of which `bits_of` makes the bits.
template <class BitsOf>
void check_writes_of(uint64_t first, uint64_t count, const BitsOf& bits_of) {
  std::vector<float> values(count);
  for (uint64_t i = 0; i < count; ++i) values[i] = bits_to_float(bits_of(first + i));
  check_writes<F16>(values);
  check_writes<BF16>(values);
}

// The upper 20 bits of a float32 hold the last that is kept and the one that makes a tie; of those below it matters
// only whether there are any.
void targets_round_as_formats_do() {
  for (const uint32_t below : {0u, 1u, 0xfffu}) {
    check_writes_of(0, 1 << 20, [&](uint64_t i) { return uint32_t(i) << 12 | below; });
  }
}

void targets_round_every_number_as_formats_do() {
  constexpr uint64_t at_a_time = 1 << 20;
  for (uint64_t first = 0; first < uint64_t{1} << 32; first += at_a_time) {
    check_writes_of(first, at_a_time, [](uint64_t i) { return uint32_t(i); });
  }
}

}  // namespace

}  // namespace flatstep::testing

int main(int count, char** arguments) {
  using namespace flatstep::testing;
  if (count > 1 && std::string_view(arguments[1]) == "all") {
    return run_parts({{"targets round every number as formats do", targets_round_every_number_as_formats_do}});
  }
  return run_parts({{"targets read as formats do", targets_read_as_formats_do},
                    {"targets round as formats do", targets_round_as_formats_do}});
}
