// See streams.h.
#include "streams.h"

#include <algorithm>
#include <numeric>

namespace flatstep::testing {

namespace {

constexpr char canary = 0x5a;

}  // namespace

Stream::Stream(int64_t elements, int item_bytes, int64_t phase)
    : bytes_(elements * item_bytes),
      front_(phase * item_bytes),
      memory_(new (alignment) char[size_t(front_ + bytes_)]) {
  std::memset(memory_.get(), canary, size_t(front_));
}

void Stream::fill(Random& random, bool with_signs) {
  const Block numbers(bytes_);
  const_cast<Block&>(numbers).fill(random, with_signs);
  std::memcpy(data(), numbers.data(), size_t(bytes_));
}

std::string Stream::image() const {
  check(std::all_of(memory_.get(), data(), [](char byte) { return byte == canary; }), "nothing is written in front");
  return {data(), size_t(bytes_)};
}

Streams::Streams(int rule, int layout, const std::vector<int64_t>& lengths, int64_t rows, uint64_t seed)
    : rule_(rule), layout_(layout), random_(seed) {
  for (const int64_t length : lengths) add(length, random_.below(rows));
}

void Streams::add(int64_t length, int64_t row) {
  const LayoutDescription& formats = layouts()[size_t(layout_)];
  const int64_t common = random_.chance(30) ? 0 : random_.below(Stream::phases);
  Segment segment{};
  segment.first = segments_.empty() ? 0 : segments_.back().first + segments_.back().count;
  segment.count = length;
  segment.scalars = row;
  segment.makes_update = random_.chance(25);
  segment.param = make_stream(length, bytes_of(formats.param), common, true).data();
  for (size_t slot = 0; slot < rules()[size_t(rule_)].slots.size(); ++slot) {
    const int bytes = bytes_of(formats.slot(rules()[size_t(rule_)].slots[slot].role));
    segment.state[slot] = make_stream(length, bytes, some_phase(common), false).data();
  }
  if (segment.makes_update && formats.grad == formats.param && random_.chance(50)) {
    segment.grad = segment.param;
  } else if (!segment.makes_update && random_.chance(20)) {
    give_walk(segment);
  } else {
    give_gradient(segment, common);
  }
  segments_.push_back(segment);
  phases_.push_back(common);
}

void Streams::give_gradient(Segment& segment, int64_t phase) {
  const int bytes = bytes_of(layouts()[size_t(layout_)].grad);
  segment.grad = make_stream(segment.count, bytes, some_phase(phase), true).data();
}

// Transposed, or any strides at all.
void Streams::give_walk(Segment& segment) {
  OwnedWalk& walk = *walks_.emplace_back(std::make_unique<OwnedWalk>());
  int64_t rest = segment.count;
  for (int64_t axes = random_.between(1, 3); axes > 1; --axes) {
    int64_t length = random_.between(1, 40);
    while (rest % length != 0) --length;
    walk.shape.push_back(length);
    rest /= length;
  }
  walk.shape.insert(walk.shape.begin() + random_.below(int64_t(walk.shape.size()) + 1), rest);
  const bool is_transposed = random_.chance(50);
  int64_t dense = random_.between(1, 2), before = 0, behind = 0;
  for (const int64_t length : walk.shape) {
    const int64_t stride = is_transposed ? dense * random_.pick<int64_t>({-1, 1}) : random_.between(-4, 4);
    dense *= length;
    walk.strides.push_back(stride);
    (stride < 0 ? before : behind) += stride * (length - 1);
  }
  walk.walk = {int(walk.shape.size()), walk.shape.data(), walk.strides.data()};
  const int bytes = bytes_of(layouts()[size_t(layout_)].grad);
  const Stream& stream = make_stream(behind - before + 1, bytes, random_.below(Stream::phases), true);
  segment.grad = stream.data() - before * bytes;
  segment.walk = &walk.walk;
}

Stream& Streams::make_stream(int64_t elements, int item_bytes, int64_t phase, bool with_signs) {
  Stream& stream = *streams_.emplace_back(std::make_unique<Stream>(elements, item_bytes, phase));
  stream.fill(random_, with_signs);
  return stream;
}

void Streams::renew_gradients() {
  for (size_t i = 0; i < segments_.size(); ++i) {
    Segment& segment = segments_[i];
    if (segment.grad == segment.param) continue;
    if (segment.walk) {
      give_walk(segment);
    } else {
      give_gradient(segment, phases_[i]);
    }
  }
}

std::vector<std::string> Streams::images() const {
  std::vector<std::string> all;
  for (const auto& stream : streams_) all.push_back(stream->image());
  return all;
}

std::vector<int64_t> random_lengths(Random& random, int64_t tensors) {
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < tensors; ++i) {
    const int64_t around = tensors > 100 ? 0 : random.pick<int64_t>({0, 0, 64, 512, 1024, 2048, 2 * 2048, -1});
    lengths.push_back(around < 0    ? random.between(1, 3000)
                      : around == 0 ? random.between(1, 3)
                                    : random.between(around - 9, around + 9));
  }
  return lengths;
}

}  // namespace flatstep::testing
