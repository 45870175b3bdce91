// See leaf_group.h.
#include "leaf_group.h"

#include <algorithm>
#include <stdexcept>

#include "managed.h"
#include "streams.h"

namespace flatstep {

template <class F>
void LeafGroup::among_all(F&& f) const {
  try {
    f();
  } catch (Refusal& refusal) {
    refusal.leaf = leaves_[size_t(refusal.leaf)];
    if (refusal.other >= 0) refusal.other = leaves_[size_t(refusal.other)];
    throw;
  }
}

void LeafGroup::add(int64_t leaf, nb::handle param) {
  leaves_.push_back(leaf);
  params_.push_back(param);
  if (!queue_) return;
  memory(params_.size() - 1).set_queue(queue_);
  memory(params_.size() - 1).let_go();
}

void LeafGroup::make_plan(std::string_view first_moment) {
  std::vector<Buffer> buffers;
  std::vector<Array> arrays;
  for (size_t i = 0; i < leaves_.size() && !queue_; ++i) buffers.emplace_back(params_[i], Stream::param, leaves_[i]);
  for (size_t i = 0; i < leaves_.size(); ++i) arrays.push_back(queue_ ? memory(i).array() : buffers[i].array());
  among_all([&] { plan_.emplace(rule_, arrays, first_moment); });
}

void LeafGroup::place_state(int slot, nb::handle buffer) {
  const Array array = Buffer(buffer, Stream::param, 0).array();
  if (array.read_only || array.axes != 1 || array.item_bytes != 1)
    throw nb::value_error("a state buffer is a writable array of bytes");
  plan_->place_state(slot, array.data, array.shape[0]);
}

DeviceMemory LeafGroup::allocate_state(int slot) {
  const int64_t bytes = plan_->state_layout(slot).bytes;
  DeviceMemory made(queue_, memory(0), bytes);
  plan_->place_state(slot, made.data(), bytes);
  return made;
}

void LeafGroup::begin() {
  grads_.assign(leaves_.size(), std::nullopt);
  held_.reserve(leaves_.size());
  if (queue_) stream_ = stream_of(memory(0).source()).value_or(nullptr);
}

std::optional<void*> LeafGroup::stream_of(nb::handle array) {
  const OnDevice current(*maker_, device_.index);
  const std::optional<void*> stream = current_stream(array, device_);
  if (!stream) waits_ = true;
  return stream;
}

// Notes the stream of an array's library, which is to go on after the step.
void LeafGroup::meet(nb::handle array) {
  if (array.type().is(last_type_)) return;
  last_type_ = array.type();
  const std::optional<void*> stream = stream_of(array);
  if (!stream || *stream == stream_) return;
  if (std::find(other_streams_.begin(), other_streams_.end(), *stream) == other_streams_.end())
    other_streams_.push_back(*stream);
}

// An array of another library on this device, until the end of the step.
const DeviceMemory& LeafGroup::take(nb::handle object, Stream stream, int64_t leaf) {
  const auto refuse = [&](const std::string& why) {
    throw Refusal{stream, leaf, "is a " + full_type_name(object) + why, -1, true};
  };
  if (!nb::hasattr(object, "__dlpack_device__")) refuse(", expected an array on a device that offers DLPack");
  try {
    if (const Device found = device_of(object); found != device_)
      refuse(" on " + name_of(found) + ", expected one on " + name_of(device_) + "; move it there");
    meet(object);
    return held_on_device_.emplace_back(object, number_of(stream_), *maker_);
  } catch (nb::python_error& error) {
    if (!is_refusal(error)) throw;
    refuse(std::string(" that cannot be shared by DLPack: ") + nb::str(error.value()).c_str());
  } catch (const nb::builtin_exception& error) {
    refuse(std::string(" that cannot be shared by DLPack: ") + error.what());
  }
  return held_on_device_.back();  // never comes here
}

void LeafGroup::take_grad(size_t position, nb::handle grad) {
  const int64_t leaf = leaves_[position];
  grads_[position] =
      queue_ ? take(grad, Stream::grad, leaf).array() : held_.emplace_back(grad, Stream::grad, leaf).array();
}

void LeafGroup::check_params() {
  for (size_t i = 0; i < leaves_.size(); ++i) {
    if (!grads_[i]) continue;
    const auto check = [&](const Array& now) { among_all([&] { plan_->check_unchanged(int64_t(i), now); }); };
    if (queue_) {
      check(take(memory(i).source(), Stream::param, leaves_[i]).array());
    } else {
      check(Buffer(params_[i], Stream::param, leaves_[i]).array());
    }
  }
}

void LeafGroup::assemble(const std::vector<Scalars>& scalars, const Rows& rows, const Target& target) {
  const std::vector<int64_t>* own_rows = rows ? &*rows : nullptr;
  if (own_rows && own_rows->size() != leaves_.size()) {
    own_rows_.clear();
    for (const int64_t leaf : leaves_) own_rows_.push_back((*rows)[size_t(leaf)]);
    own_rows = &own_rows_;
  }
  among_all([&] { jobs_ = &plan_->assemble(grads_, scalars, own_rows, target); });
}

void LeafGroup::prepare(const std::vector<Scalars>& scalars) {
  if (!queue_) return;
  bool captures = queue_->is_capturing(stream_);
  for (void* const stream : other_streams_) captures = captures || queue_->is_capturing(stream);
  if (captures) {
    throw std::runtime_error(
        "this step would become part of a CUDA graph, whose replays would not be counted; use flatstep.torch with "
        "capturable=True, or step outside of the capture");
  }
  std::vector<Row> rows;
  for (size_t i = 0; i < scalars.size(); ++i) rows.push_back({int64_t(i), {}});
  queue_->prepare({*jobs_, rows, scalars, {}, nullptr, stream_});
}

void LeafGroup::carry_out(Team team) {
  if (!queue_) {
    run(jobs_->data(), int64_t(jobs_->size()), team);
    return;
  }
  queue_->launch();
  for (void* const stream : other_streams_) queue_->let_follow(stream);
  if (waits_) queue_->wait();
}

void LeafGroup::end() {
  held_.clear();
  held_on_device_.clear();
  other_streams_.clear();
  waits_ = false;
  last_type_ = nb::handle();
}

}  // namespace flatstep
