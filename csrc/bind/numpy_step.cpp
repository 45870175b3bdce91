// The steps of flatstep.Optimizer: parameters checked when it is made, then one call a step.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <deque>
#include <stdexcept>

#include "describe.h"
#include "norm.h"
#include "numpy_device.h"
#include "read_array.h"

namespace flatstep {

namespace {

// NumPy's gradients are like their parameters and apart from them, which stay where they are.
constexpr StepOptions options = {false, false, true};

using RowOfEach = std::optional<std::vector<int64_t>>;  // by parameter; without it, all take the first

class Stepper {
 public:
  // `arrays` are NumPy's, or DeviceMemory; `devices` are capsules of DeviceBackends, for the latter.
  Stepper(std::string_view rule, nb::list arrays, std::string_view first_moment, nb::callable name, bool on_openmp,
          nb::list devices)
      : rule_(find_rule(rule)),
        arrays_(std::move(arrays)),
        name_(std::move(name)),
        backends_(std::move(devices)),
        target_(&chosen_target()),
        team_(on_openmp ? Team::openmp : Team::own) {
    if (rule_ < 0) throw nb::key_error("no such rule");
    std::optional<Dtype> of_moment;
    if (!first_moment.empty()) of_moment = dtype_named(first_moment);
    with_named_errors([&] {
      for (nb::handle array : arrays_) add(array, of_moment);
      for (NumpyDeviceStep& device : devices_) device.tensors.check_overlap();
    });
    reader_.release();
  }

  Stepper(const Stepper&) = delete;
  Stepper& operator=(const Stepper&) = delete;

  // Makes the state, which is zero at first. Returns, for each slot, each parameter's (buffer, offset in bytes).
  // `allocate(bytes)` makes a zeroed buffer in the processor's memory. The stepper keeps a reference to each buffer.
  nb::list make_state(nb::callable allocate) {
    nb::list places;
    for (size_t slot = 0; slot < rules()[size_t(rule_)].slots.size(); ++slot) {
      nb::list of_slot;
      for (size_t i = 0; i < params_.size(); ++i) of_slot.append(nb::none());
      for (NumpyDeviceStep& device : devices_) make_buffer(device, slot, allocate, of_slot);
      places.append(of_slot);
    }
    return places;
  }

  // What all steps from here on do besides the update: see TailOptions.
  void set_tail(bool zeroes_gradients, bool in_own_dtype, bool is_interpolated, double decay) {
    const AverageForm form = is_interpolated ? AverageForm::interpolated : AverageForm::weighted;
    for (NumpyDeviceStep& device : devices_)
      device.tensors.set_tail(TailOptions{zeroes_gradients, in_own_dtype, form, decay});
  }

  // Makes the averages, which are zero at first, in these dtypes. Returns as an entry of make_state's.
  nb::list make_averages(nb::callable allocate, const std::vector<std::string>& dtypes) {
    nb::list places;
    for (size_t i = 0; i < params_.size(); ++i) places.append(nb::none());
    std::vector<Tensor> averages;
    for (size_t i = 0; i < params_.size(); ++i) {
      averages.push_back(params_[i].tensors.param);
      averages.back().dtype = dtype_named(dtypes.at(i));
    }
    for (NumpyDeviceStep& device : devices_) place(device, allocate, averages, places);
    for (size_t i = 0; i < params_.size(); ++i) params_[i].tensors.average = averages[i].data;
    return places;
  }

  // One step, with rows of numbers. `progress` becomes the stepper's with the step itself: no signal can strike between
  // the two. `max_norm` is a number or None. Where gradients that are not finite shall skip the step, `if_skipped`
  // becomes the stepper's progress then. `norm` is that of the gradients, if any of the two is given.
  void step(nb::list grads, nb::list rows, const RowOfEach& row_of_each, nb::object progress,
            std::optional<double> max_norm, std::optional<nb::object> if_skipped) {
    if (grads.size() != params_.size() || (row_of_each && row_of_each->size() != params_.size()))
      throw nb::value_error("expected one gradient and one row a parameter");
    const AtTheEnd leave_no_references{[this] {
      reader_.release();
      for (NumpyDeviceStep& device : devices_) device.end();
    }};
    begin(rows, row_of_each);
    with_named_errors([&] {
      for (Param& param : params_) {
        const int64_t index = param.tensors.index;
        const nb::handle grad = grads[size_t(index)];
        param.has_grad = !grad.is_none();
        if (!param.has_grad) continue;
        param.tensors.grad = param.device->is_processor() ? reader_.read(grad, Operand::grad, index)
                                                          : param.device->read(grad, Operand::grad, index);
      }
      // Parameters after all gradients, and those on devices first: to read another library's arrays runs its code,
      // which may do anything.
      for (const bool on_device : {true, false}) {
        for (const Param& param : params_) {
          if (param.has_grad && param.device->is_processor() != on_device) check_unchanged(param);
        }
      }
      for (Param& param : params_) {
        if (!param.has_grad) continue;
        param.tensors.row = row_of_each ? (*row_of_each)[size_t(param.tensors.index)] : 0;
        param.device->tensors.add(param.tensors);
      }
      for (NumpyDeviceStep& device : devices_) device.tensors.check_overlap();
    });
    const GradientLimits limits{max_norm, if_skipped.has_value(), GradientLimits::Formula::optax};
    const bool has_limits = limits.max_norm || limits.skips_nonfinite;
    NumpyDeviceStep* const limited = has_limits ? add_to_norm() : nullptr;
    if (limited) limited->limit(norm_, limits);
    std::optional<GradientNorm::Result> norm;
    bool is_skipped = false;
    unlocked([&] {
      if (has_limits && !limited) norm = limit_gradients(limits);
      is_skipped = norm && limits.is_skipped(*norm);
      if (is_skipped) {
        for (const NumpyDeviceStep& device : devices_) device.tensors.zero_gradients_if_asked(*target_);
        return;
      }
      for (NumpyDeviceStep& device : devices_) device.prepare(*target_);
      launch(devices_, team_);
      for (NumpyDeviceStep& device : devices_) device.continue_others();
      if (limited && limits.skips_nonfinite) is_skipped = limited->found.read(limited->stream).skips != 0;
    });
    progress_ = is_skipped ? std::move(*if_skipped) : std::move(progress);
    last_norm_ = norm ? std::optional(norm->value) : std::nullopt;
    last_limited_ = limited;
  }

  // Of the last step's gradients, if it had limits for them. Waits for a device that has found it.
  std::optional<double> norm() {
    if (!last_limited_) return last_norm_;
    void* const stream = last_limited_->stream_of(last_limited_->first->source).value_or(nullptr);
    FoundNorm found{};
    unlocked([&] { found = last_limited_->found.read(stream); });
    return found.norm;
  }

  // What the caller counts with; goes on with each step.
  nb::object progress() const { return progress_; }
  void set_progress(nb::object progress) { progress_ = std::move(progress); }

  // Who carries out the steps: the processor's target, the devices, or both.
  std::string target() const {
    std::string names;
    for (const NumpyDeviceStep& device : devices_) {
      const std::string_view name = device.is_processor() ? target_->name : "cuda";
      if (names.find(name) == std::string::npos) names += (names.empty() ? "" : ", ") + std::string(name);
    }
    return names.empty() ? target_->name : names;
  }

  // For the garbage collector: what here may lead back to the optimizer.
  int visit(visitproc visit, void* argument) {
    for (const nb::handle held : std::initializer_list<nb::handle>{arrays_, state_, progress_, name_})
      if (const int stop = held.is_valid() ? visit(held.ptr(), argument) : 0) return stop;
    return 0;
  }
  void forget() {
    last_limited_ = nullptr;
    devices_.clear();
    params_.clear();
    arrays_.reset();
    state_.reset();
    progress_.reset();
    name_.reset();
  }

 private:
  // A parameter as it was when the optimizer was made, and has to stay; its gradient and row are those of a step.
  struct Param {
    nb::handle object;  // arrays_ keeps it
    NumpyDeviceStep* device;
    Parameter tensors{};
    std::vector<int64_t> numbers{};  // shape and strides, to which the parameter and its state point
    bool has_grad = false;
  };

  // Throws ArgumentError, and so does every function that reads arrays.
  void add(nb::handle object, std::optional<Dtype> first_moment) {
    const auto index = int64_t(params_.size());
    DeviceMemory* memory = nullptr;
    nb::try_cast(object, memory);
    NumpyDeviceStep& device = step_on(memory ? memory->array.device : Device{cpu_device, 0});
    Param& param = params_.emplace_back(Param{object, &device});
    Tensor& tensor = param.tensors.param;
    if (memory) {
      memory->queue = device.queue;
      memory->array.owner.reset();  // the library's own object, which garbage collectors do not see here
      if (!device.first) device.first = memory;
      tensor = memory->array.tensor();
    } else {
      tensor = reader_.read(object, Operand::param, index);
    }
    const LayoutDescription& layout = layouts()[size_t(check_new_parameter(rule_, index, tensor, first_moment))];
    param.numbers.assign(tensor.shape, tensor.shape + tensor.ndim);
    param.numbers.insert(param.numbers.end(), tensor.strides, tensor.strides + tensor.ndim);
    tensor.shape = param.numbers.data();
    tensor.strides = tensor.shape + tensor.ndim;
    param.tensors.index = index;
    const std::vector<SlotDescription>& slots = rules()[size_t(rule_)].slots;
    for (size_t slot = 0; slot < slots.size(); ++slot) {
      param.tensors.state[slot] = tensor;
      param.tensors.state[slot].dtype = layout.slot(slots[slot].role);
    }
    Extent extent{0, 0, index, nullptr};
    if (element_count(tensor) > 0 && find_extent(tensor, extent)) device.tensors.fix_memory(extent);
  }

  NumpyDeviceStep& step_on(const Device& device) {
    for (NumpyDeviceStep& known : devices_) {
      if (known.device == device) return known;
    }
    const DeviceBackend* const backend = device.type == cpu_device ? nullptr : backends_.find(device.type);
    if (!backend && device.type != cpu_device) throw nb::type_error("there is no kernel for that device");
    return devices_.emplace_back(device, rule_, slot_names(rule_), options, backend);
  }

  // Makes the buffer of a slot on a device, and places in it the state of the parameters there.
  void make_buffer(NumpyDeviceStep& device, size_t slot, const nb::callable& allocate, nb::list& places) {
    std::vector<Tensor> tensors;
    for (const Param& param : params_) tensors.push_back(param.tensors.state[slot]);
    place(device, allocate, tensors, places);
    for (size_t i = 0; i < params_.size(); ++i) params_[i].tensors.state[slot].data = tensors[i].data;
  }

  // Makes a buffer on a device for tensors that lie as the parameters there, and sets where they are.
  void place(NumpyDeviceStep& device, const nb::callable& allocate, std::vector<Tensor>& tensors, nb::list& places) {
    std::vector<int64_t> offsets;
    int64_t bytes = 0;
    for (size_t i = 0; i < params_.size(); ++i) {
      if (params_[i].device != &device) continue;
      const Tensor& tensor = params_[i].tensors.param;
      const int item = bytes_of(tensors[i].dtype);
      // As many elements after a cache line's begin as the parameter, so that kernels meet both at one time.
      const auto phase = int64_t(reinterpret_cast<uintptr_t>(tensor.data) % cache_line);
      offsets.push_back(bytes + phase / bytes_of(tensor.dtype) * item);
      bytes = (offsets.back() + element_count(tensor) * item + cache_line - 1) / cache_line * cache_line;
    }
    const nb::object buffer = device.is_processor() ? allocate(bytes) : nb::cast(device.first->allocate(bytes));
    state_.append(buffer);
    char* const begin =
        device.is_processor() ? begin_of(buffer, bytes) : nb::inst_ptr<DeviceMemory>(buffer)->array.data;
    for (size_t i = 0, next = 0; i < params_.size(); ++i) {
      if (params_[i].device != &device) continue;
      if (bytes > 0) tensors[i].data = begin + offsets[next];
      places[i] = nb::make_tuple(buffer, offsets[next++]);
    }
    const auto address = reinterpret_cast<uintptr_t>(begin);
    if (bytes > 0) device.tensors.fix_memory({address, address + uintptr_t(bytes), -1, nullptr});
  }

  static char* begin_of(nb::handle buffer, int64_t bytes) {
    const Buffer host(buffer, PyBUF_WRITABLE);
    if (host.view.len < bytes || (bytes > 0 && reinterpret_cast<uintptr_t>(host.view.buf) % cache_line != 0))
      throw std::invalid_argument("a state buffer is too short, or does not begin a cache line");
    return static_cast<char*>(host.view.buf);
  }

  void begin(const nb::list& rows, const RowOfEach& row_of_each) {
    std::vector<Scalars> table;
    for (nb::handle row : rows) table.push_back(read_scalars(row, rules()[size_t(rule_)].hyperparameters.size()));
    for (const int64_t row : row_of_each ? *row_of_each : std::vector<int64_t>{0}) {
      if (row < 0 || row >= int64_t(table.size())) throw nb::index_error("no such row of scalars");
    }
    for (NumpyDeviceStep& device : devices_) {
      device.begin();
      device.scalars = table;
      if (device.is_processor()) continue;
      for (size_t i = 0; i < table.size(); ++i) device.rows.push_back({int64_t(i), {}});
      device.stream = device.stream_of(device.first->source).value_or(nullptr);
    }
  }

  // Adds the step's gradients to the norm. Returns the device on which they lie; null for the processor.
  NumpyDeviceStep* add_to_norm() {
    norm_.begin();
    NumpyDeviceStep* common = nullptr;
    for (const Param& param : params_) {
      if (!param.has_grad) continue;
      if (!common) common = param.device;
      if (common != param.device)
        throw std::runtime_error("max_norm and skip_nonfinite need all gradients in one memory, but some are on " +
                                 name_of(common->device) + " and some on " + name_of(param.device->device) +
                                 "; make an optimizer for the parameters of each");
      norm_.add(param.tensors.grad, param.device->scalars[size_t(param.tensors.row)].grad_scale);
    }
    return common && !common->is_processor() ? common : nullptr;
  }

  // The norm of what was added. Gradients of too large a norm are then scaled down with their own scale.
  GradientNorm::Result limit_gradients(const GradientLimits& limits) {
    const GradientNorm::Result norm = norm_.find(*target_, NormKind::two, team_);
    const double factor = limits.factor(norm.value);
    const DefaultFloatingPoint mode;
    for (NumpyDeviceStep& device : devices_) {
      for (Scalars& scalars : device.scalars) scalars.grad_scale *= factor;
    }
    return norm;
  }

  void check_unchanged(const Param& param) {
    const Tensor& known = param.tensors.param;
    const int64_t index = param.tensors.index;
    NumpyDeviceStep& device = *param.device;
    if (device.is_processor() && is_still(param.object, known)) return;
    const Tensor now = device.is_processor()
                           ? reader_.read(param.object, Operand::param, index)
                           : device.read(nb::inst_ptr<DeviceMemory>(param.object)->source, Operand::param, index);
    const auto reject = [&](const char* why) { throw ArgumentError{Operand::param, index, why}; };
    if (now.read_only) reject("has become read-only, but parameters are updated in place");
    if (!is_same_memory(now, known))
      reject("has another shape, dtype or place in memory than when the optimizer was made");
  }

  // Carries out f; an ArgumentError becomes a Python error that names the parameter.
  template <class F>
  void with_named_errors(F&& f) const {
    try {
      f();
    } catch (const ArgumentError& error) {
      raise(error, {"params", "grads", [this](int64_t index) { return nb::cast<std::string>(name_(index)); }});
    }
  }

  int rule_;
  nb::list arrays_, state_;
  nb::object progress_ = nb::none();
  nb::callable name_;
  Backends backends_;
  const Target* target_;
  Team team_;
  ArrayReader reader_;  // of the processor's arrays
  GradientNorm norm_;
  std::optional<double> last_norm_;
  NumpyDeviceStep* last_limited_ = nullptr;  // whose device has found the last step's norm
  std::deque<NumpyDeviceStep> devices_;      // in the order in which they were met; Param points to them
  std::deque<Param> params_;
};

}  // namespace

void bind_step(nb::module_& module) {
  module.def("check_meaning", &dlpack::check_meaning, nb::arg("object"));
  nb::class_<Stepper>(module, "Stepper", nb::type_slots(Collected<Stepper>::slots))
      .def(nb::init<std::string_view, nb::list, std::string_view, nb::callable, bool, nb::list>(),
           nb::sig("def __init__(self, rule: str, arrays: list[typing.Any], first_moment: str, "
                   "name: collections.abc.Callable[[int], str], on_openmp: bool, backends: list[object], /) -> None"))
      .def("make_state", &Stepper::make_state,
           nb::sig("def make_state(self, allocate: collections.abc.Callable[[int], typing.Any], /) "
                   "-> list[list[tuple[typing.Any, int]]]"))
      .def("set_tail", &Stepper::set_tail,
           nb::sig("def set_tail(self, zeroes_gradients: bool, in_own_dtype: bool, is_interpolated: bool, "
                   "decay: float, /) -> None"))
      .def("make_averages", &Stepper::make_averages,
           nb::sig("def make_averages(self, allocate: collections.abc.Callable[[int], typing.Any], "
                   "dtypes: list[str], /) -> list[tuple[typing.Any, int]]"))
      .def("step", &Stepper::step,
           nb::sig("def step(self, grads: list[typing.Any], rows: list[tuple[float, ...]], "
                   "row_of_each: collections.abc.Sequence[int] | None, progress: object, max_norm: float | None, "
                   "if_skipped: object | None, /) -> None"))
      .def_prop_ro("norm", &Stepper::norm, nb::for_getter(nb::sig("def norm(self, /) -> float | None")))
      .def_prop_rw("progress", &Stepper::progress, &Stepper::set_progress,
                   nb::for_getter(nb::sig("def progress(self, /) -> typing.Any")),
                   nb::for_setter(nb::arg("value").none()))
      .def_prop_ro("target", &Stepper::target);
}

}  // namespace flatstep
