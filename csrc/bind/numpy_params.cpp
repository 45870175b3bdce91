// See numpy_params.h.
#include "numpy_params.h"

#include <algorithm>
#include <stdexcept>

namespace flatstep {

namespace {

// NumPy's gradients are like their parameters and apart from them, which stay where they are.
constexpr StepOptions options = {false, false, true};

}  // namespace

NumpyParams::NumpyParams(const Device& device, int rule, const DeviceBackend* backend)
    : DeviceStep(device, rule, slot_names(rule), options, backend), slots_(rules()[size_t(rule)].slots) {}

void NumpyParams::add(int64_t index, nb::handle object, std::optional<Dtype> first_moment) {
  Known& known = params_.emplace_back();
  indices_.push_back(index);
  known.object = object;
  std::optional<ArrayView> view;
  Tensor& param = known.parameter.param;
  if (is_processor()) {
    param = view.emplace(object, Operand::param, index).tensor();
  } else {
    DeviceMemory& memory = *nb::inst_ptr<DeviceMemory>(object);
    memory.set_queue(queue());
    memory.let_go();
    param = memory.tensor();
  }
  const int layout = check_new_parameter(rule(), index, param, first_moment);
  known.numbers.assign(param.shape, param.shape + param.ndim);
  known.numbers.insert(known.numbers.end(), param.strides, param.strides + param.ndim);
  param.shape = known.numbers.data();
  param.strides = known.numbers.data() + param.ndim;
  known.parameter.index = index;
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    known.parameter.state[slot] = param;
    known.parameter.state[slot].dtype = layouts()[size_t(layout)].slot(slots_[slot].role);
  }
  Extent extent{0, 0, index, nullptr};
  if (element_count(param) > 0 && find_extent(param, extent)) tensors.fix_memory(extent);
}

NumpyParams::StateLayout NumpyParams::state_layout(size_t slot) const {
  StateLayout placed{{}, 0};
  for (const Known& known : params_) {
    const Tensor& param = known.parameter.param;
    const int item = bytes_of(known.parameter.state[slot].dtype);
    // As many elements after a cache line's begin as the parameter, so that kernels meet both at one time.
    const auto phase = int64_t(reinterpret_cast<uintptr_t>(param.data) % cache_line);
    placed.offsets.push_back(placed.bytes + phase / bytes_of(param.dtype) * item);
    const int64_t end = placed.offsets.back() + element_count(param) * item;
    placed.bytes = (end + cache_line - 1) / cache_line * cache_line;
  }
  return placed;
}

DeviceMemory NumpyParams::allocate(int64_t bytes) const { return {queue(), memory(0), bytes}; }

void NumpyParams::place_state(size_t slot, nb::handle buffer, const StateLayout& layout) {
  if (layout.bytes == 0) return;
  char* begin;
  if (is_processor()) {
    Py_buffer view;
    if (PyObject_GetBuffer(buffer.ptr(), &view, PyBUF_WRITABLE) != 0) throw nb::python_error();
    PyBuffer_Release(&view);  // the stepper keeps the buffer
    begin = static_cast<char*>(view.buf);
    if (view.len < layout.bytes || reinterpret_cast<uintptr_t>(begin) % cache_line != 0)
      throw std::invalid_argument("a state buffer is too short, or does not begin a cache line");
  } else {
    begin = static_cast<char*>(nb::inst_ptr<DeviceMemory>(buffer)->data());
  }
  for (size_t i = 0; i < params_.size(); ++i) params_[i].parameter.state[slot].data = begin + layout.offsets[i];
  const auto address = reinterpret_cast<uintptr_t>(begin);
  tensors.fix_memory({address, address + uintptr_t(layout.bytes), -1, nullptr});
}

void NumpyParams::begin(const std::vector<Scalars>& table) {
  DeviceStep::begin();
  scalars = table;
  for (Known& known : params_) known.has_grad = false;
  held_.reserve(params_.size());
  if (is_processor()) return;
  for (size_t i = 0; i < table.size(); ++i) rows.push_back({int64_t(i), {}});
  stream = stream_of(memory(0).source()).value_or(nullptr);
}

void NumpyParams::take_grad(size_t position, nb::handle grad) {
  const int64_t index = indices_[position];
  Known& known = params_[position];
  known.has_grad = true;
  known.parameter.grad = is_processor() ? held_.emplace_back(grad, Operand::grad, index).tensor()
                                        : take_on_device(grad, Operand::grad, index);
}

void NumpyParams::add_params(const RowOfEach& rows_of_each) {
  for (size_t i = 0; i < params_.size(); ++i) {
    const Known& known = params_[i];
    if (!known.has_grad) continue;
    if (!is_processor()) {
      check_unchanged(i, take_on_device(memory(i).source(), Operand::param, indices_[i]));
    } else if (!is_still(known.object, known.parameter.param)) {
      check_unchanged(i, ArrayView(known.object, Operand::param, indices_[i]).tensor());
    }
  }
  for (Known& known : params_) {
    if (!known.has_grad) continue;
    known.parameter.row = rows_of_each ? (*rows_of_each)[size_t(known.parameter.index)] : 0;
    tensors.add(known.parameter);
  }
  tensors.check_overlap();
}

void NumpyParams::check_unchanged(size_t position, const Tensor& now) const {
  const Tensor& known = params_[position].parameter.param;
  const auto reject = [&](const char* why) { throw ArgumentError{Operand::param, indices_[position], why}; };
  if (now.read_only) reject("has become read-only, but parameters are updated in place");
  if (now.data != known.data || now.dtype != known.dtype || !have_same_shape(now, known) ||
      !std::equal(now.strides, now.strides + now.ndim, known.strides))
    reject("has another shape, dtype or place in memory than when the optimizer was made");
}

void NumpyParams::prepare(const Target& target) {
  constexpr Capture never = {
      false,
      "this step would become part of a CUDA graph, whose replays would not be counted; use flatstep.torch with "
      "capturable=True, or step outside of the capture"};
  for (void* const other : other_streams_) {
    if (is_capturing(other)) throw std::runtime_error(never.error);
  }
  DeviceStep::prepare(target, never);
}

void NumpyParams::launch(Team team, int threads) {
  DeviceStep::launch(team, threads);
  for (void* const other : other_streams_) queue()->let_follow(other);
  if (waits_) queue()->wait();
}

void NumpyParams::end() {
  held_.clear();
  held_on_device_.clear();
  other_streams_.clear();
  waits_ = false;
  last_type_ = nb::handle();
}

std::optional<void*> NumpyParams::stream_of(nb::handle array) {
  const OnDevice current(backend(), device().index);
  const std::optional<void*> stream = current_stream(array, device());
  if (!stream) waits_ = true;
  return stream;
}

void NumpyParams::note_stream(nb::handle array) {
  if (array.type().is(last_type_)) return;
  last_type_ = array.type();
  const std::optional<void*> other = stream_of(array);
  if (!other || *other == stream) return;
  if (std::find(other_streams_.begin(), other_streams_.end(), *other) == other_streams_.end())
    other_streams_.push_back(*other);
}

// An array of another library on this device, until the end of the step.
Tensor NumpyParams::take_on_device(nb::handle object, Operand operand, int64_t index) {
  const auto reject = [&](const std::string& why) {
    throw ArgumentError{operand, index, "is a " + full_type_name(object) + why, -1, true};
  };
  if (!nb::hasattr(object, "__dlpack_device__")) reject(", expected an array on a device that offers DLPack");
  try {
    if (const Device found = dlpack::device_of(object); found != device())
      reject(" on " + name_of(found) + ", expected one on " + name_of(device()) + "; move it there");
    note_stream(object);
    return held_on_device_.emplace_back(object, number_of(stream), backend()).tensor();
  } catch (nb::python_error& error) {
    if (!is_rejection(error)) throw;
    reject(std::string(" that cannot be shared by DLPack: ") + text_of(error.value()));
  } catch (const nb::builtin_exception& error) {
    reject(std::string(" that cannot be shared by DLPack: ") + error.what());
  }
  return {};  // never comes here
}

}  // namespace flatstep
