// torch tensors -> a step: walks parameter groups, gradients and state in one call, and caches nothing between calls,
// for torch moves all of them in many ways. Links against no torch.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <deque>
#include <stdexcept>

#include "describe.h"
#include "read_torch.h"
#include "torch_limits.h"

namespace flatstep {

namespace {

// A parameter stands twice in one step; it must be stepped twice.
struct Repeated : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// One parameter in a step, and what stands for it: itself, its gradient, its count, its slots and its average, or what
// the caller made for them.
struct Parts {
  static constexpr size_t grad = 1, count = 2;  // where these are

  int64_t position;
  nb::object param;
  nb::object tensors[count + 1 + max_slots + 1];
  nb::object own_grad{};  // the parameter's, where something else may stand for it and it becomes zero
};

// A rule that groups may choose, and the keys of its state: for the count of updates, then for each slot.
struct StateOfRule {
  int rule;
  std::vector<std::string> slots;  // for messages
  std::vector<nb::object> keys;

  StateOfRule(std::string_view name, std::vector<std::string> names) : rule(find_rule(name)) {
    if (rule < 0) throw nb::key_error("no such rule");
    if (names.size() != rules()[size_t(rule)].slots.size() + 1) throw nb::value_error("expected a key a slot");
    for (const std::string& key : names) keys.push_back(nb::steal(PyUnicode_InternFromString(key.c_str())));
    slots.assign(names.begin() + 1, names.end());
  }
};

class TorchStepper {
 public:
  // `rules` are (a rule's name, the keys of its state). `devices` are capsules of DeviceBackends; without one the
  // processor steps what lies in its memory, and nothing else is stepped.
  TorchStepper(nb::list rules, nb::tuple plain_types, nb::handle exchange_api, nb::list devices)
      : target_(&chosen_target()), reader_(std::move(plain_types), exchange_api), backends_(std::move(devices)) {
    for (nb::handle rule : rules)
      rules_.emplace_back(nb::cast<std::string_view>(rule[0]), nb::cast<std::vector<std::string>>(rule[1]));
  }

  TorchStepper(const TorchStepper&) = delete;
  TorchStepper& operator=(const TorchStepper&) = delete;

  // What all steps from here on do besides the update: see TailOptions. The averages of parameters are in their states.
  void set_tail(bool zeroes_gradients, bool keeps_averages, bool in_own_dtype, bool is_interpolated, double decay) {
    const AverageForm form = is_interpolated ? AverageForm::interpolated : AverageForm::weighted;
    tail_.reset();
    if (zeroes_gradients || keeps_averages) tail_ = TailOptions{zeroes_gradients, in_own_dtype, form, decay};
    keeps_averages_ = keeps_averages;
    for (TorchParams& params : params_) params.tensors.set_tail(tail_);
  }

  // One step over groups of (parameters, row of scalars without count, index of the rule). Returns the positions,
  // counted over all groups, of parameters that cannot be taken as they are, and then nothing was done; and the tensors
  // that were written: parameters, and gradients that are zero now. `stand_ins` has by position what to take instead:
  // (param, grad, count, *slots), with the average if there are any, or None to leave the parameter out. `scalings` are
  // a loss's scale and overflow flag, either may be None, for each device on which they lie. `completion` are functions
  // that belong to the step: they are called after it, and as long as they run no Python code no signal handler can
  // raise in between. Raises RuntimeError where a step would become part of a graph, but is not `capturable`. `always`
  // are calls that are made for a skipped step, too. With `limits` a third result is the norm of all gradients, and a
  // fourth whether they skipped the step: None and False where the device alone knows.
  nb::tuple step(nb::list groups, nb::dict state, nb::dict stand_ins, nb::list scalings, bool capturable,
                 nb::callable name, int threads, nb::list completion, nb::list always,
                 std::optional<TorchLimits::Asked> limits) {
    const AtTheEnd leave_no_references{[this] {
      for (TorchParams& params : params_) params.begin();
      held_.clear();
      unready_ = nb::list();
      limits_.end();
    }};
    limits_.begin(limits, reader_);
    read_groups(groups, state, stand_ins, name);
    nb::list stepped;
    bool is_skipped = false;
    GradientNorm::Result norm{};
    if (unready_.size() == 0) {
      std::vector<Scaling> scaling;
      for (TorchParams& params : params_) {
        scaling.push_back(scaling_on(params.device, scalings));
        if (!params.is_processor()) params.stream = reader_.current_stream(params.device);
      }
      limits_.limit_on_device(params_, scaling);
      unlocked([&] {
        check_captures();
        if (limits_.are_for_host()) {
          norm = limits_.find(*target_, threads);
          is_skipped = limits_.rule().is_skipped(norm);
          if (is_skipped) {
            for (const TorchParams& params : params_) params.tensors.zero_gradients_if_asked(*target_);
            return;
          }
          for (TorchParams& params : params_) params.scale_gradients(limits_.rule().factor(norm.value));
        }
        for (size_t i = 0; i < params_.size(); ++i) params_[i].prepare(*target_, scaling[i], capturable);
        launch(params_, Team::openmp, threads);
        for (const TorchParams& params : params_) params.count();
      });
      if (!is_skipped) {
        for (nb::handle call : completion) call();
        for (const Parts& parts : held_) stepped.append(parts.param);
      }
      for (nb::handle call : always) call();
      if (tail_ && tail_->zeroes_gradients) {
        for (const Parts& parts : held_) stepped.append(parts.own_grad);
      }
    }
    if (!limits) return nb::make_tuple(unready_, stepped);
    if (!limits_.are_for_host()) return nb::make_tuple(unready_, stepped, nb::none(), false);
    return nb::make_tuple(unready_, stepped, norm.value, is_skipped);
  }

  std::string_view target() const { return target_->name; }

 private:
  void read_groups(const nb::list& groups, const nb::dict& state, const nb::dict& stand_ins, const nb::callable& name) {
    next_state_ = 0;
    try {
      int64_t position = 0;
      for (nb::handle group : groups) {
        const nb::tuple parts = nb::borrow<nb::tuple>(group);
        rule_ = &rules_.at(nb::cast<size_t>(parts[2]));
        numbers_ = read_numbers(nb::borrow<nb::tuple>(parts[1]));
        for (TorchParams& params : params_) params.begin_group();
        for (nb::handle param : nb::borrow<nb::list>(parts[0])) take(position++, param, state, stand_ins);
      }
      if (unready_.size() > 0) return;
      for (size_t i = 0; i < params_.size(); ++i) check_device_of(i);
    } catch (const ArgumentError& error) {
      raise_for(error, name);
    }
  }

  // The parameters of one device are checked together: their rules differ, but they may share memory.
  void check_device_of(size_t first) {
    for (size_t i = 0; i < params_.size(); ++i) {
      if (i == first || params_[i].device != params_[first].device) continue;
      if (i < first) return;
      params_[first].tensors.merge_overlap(params_[i].tensors);
    }
    params_[first].tensors.check_overlap();
  }

  void take(int64_t position, nb::handle param, const nb::dict& state, const nb::dict& stand_ins) {
    static PyObject* const grad_name = PyUnicode_InternFromString("grad");
    Parts parts{position, nb::borrow(param), {nb::borrow(param), param.attr(grad_name)}};
    if (tail_) parts.own_grad = parts.tensors[Parts::grad];
    const bool is_stand_in = stand_ins.size() > 0 && stand_ins.contains(position);
    const nb::object stand_in = is_stand_in ? nb::object(stand_ins[nb::int_(position)]) : nb::none();
    if (parts.tensors[Parts::grad].is_none() || (is_stand_in && stand_in.is_none())) {
      next_state(state, param);
      return;
    }
    for (size_t i = 0; is_stand_in && i < nb::len(stand_in); ++i) parts.tensors[i] = stand_in[i];
    if ((is_stand_in || find_state(parts, state)) && add(parts)) {
      held_.push_back(std::move(parts));
    } else if (is_stand_in) {
      throw ArgumentError{Operand::param, position, "is of a kind that cannot be stepped; use torch.optim for it"};
    } else {
      unready_.append(position);
    }
  }

  // False where there is none yet, or not all of it.
  bool find_state(Parts& parts, const nb::dict& state) {
    nb::object own = next_state(state, parts.param);
    if (!own.is_valid()) own = find(state, parts.param);
    if (!own.is_valid() || !PyDict_Check(own.ptr())) return false;
    bool is_complete = true;
    for (size_t i = 0; i < rule_->keys.size(); ++i) {
      parts.tensors[Parts::count + i] = find(own, rule_->keys[i]);
      is_complete = is_complete && parts.tensors[Parts::count + i].is_valid();
    }
    if (keeps_averages_) {
      static PyObject* const average_key = PyUnicode_InternFromString("ema");
      nb::object& average = parts.tensors[average_at()];
      average = find(own, average_key);
      is_complete = is_complete && average.is_valid();
    }
    return is_complete;
  }

  size_t average_at() const { return Parts::count + rule_->keys.size(); }  // behind the slots

  // The next entry of the state, if it is the parameter's. State is made in the order of parameters, so that it mostly
  // is, and saves a look-up, for which torch computes hashes in Python.
  nb::object next_state(const nb::dict& state, nb::handle param) {
    Py_ssize_t at = next_state_;
    PyObject *key, *value;
    if (!PyDict_Next(state.ptr(), &at, &key, &value) || !param.is(key)) return {};
    next_state_ = at;
    return nb::borrow(value);
  }

  static nb::object find(nb::handle dict, nb::handle key) {
    nb::object found = nb::borrow(PyDict_GetItemWithError(dict.ptr(), key.ptr()));
    if (!found.is_valid() && PyErr_Occurred()) throw nb::python_error();
    return found;
  }

  bool add(const Parts& parts) {
    Tensor read[Parts::count + 1 + max_slots + 1];
    for (size_t i = 0; i < average_at() + size_t(keeps_averages_); ++i) {
      if (!reader_.read(parts.tensors[i], read[i])) return false;
    }
    Parameter parameter{parts.position, read[0], read[Parts::grad], {}, 0};
    std::copy_n(read + Parts::count + 1, rule_->slots.size(), parameter.state);
    TorchParams* const params = params_on(parameter.param.device);
    if (params && keeps_averages_ && !params->tensors.set_average(parameter, read[average_at()])) return false;
    if (!params || !params->add(parameter, read[Parts::count], numbers_)) return false;
    if (limits_.are_set()) limits_.add(parameter, numbers_.scalars.grad_scale, *params);
    return true;
  }

  // Those of that device which the group's rule steps; null where nothing can.
  TorchParams* params_on(const Device& device) {
    for (TorchParams& params : params_) {
      if (params.device == device && params.rule == rule_->rule) return &params;
    }
    const DeviceBackend* const backend = backends_.find(device.type);
    if (!backend && device.type != cpu_device) return nullptr;
    TorchParams& made = params_.emplace_back(device, rule_->rule, rule_->slots, StepOptions{}, backend);
    made.tensors.set_tail(tail_);
    return &made;
  }

  // A group's row, in which a tensor may stand for a number that lies on a device.
  GroupNumbers read_numbers(const nb::tuple& row) {
    GroupNumbers numbers;
    nb::object plain = row;  // with zeros where tensors are
    for (size_t i = 0; i < row.size(); ++i) {
      const nb::handle item = row[i];
      if (PyFloat_Check(item.ptr()) || PyLong_Check(item.ptr())) continue;
      numbers.on_device.push_back({int32_t(i < scalar_count ? i - 1 : i), read_number(item)});
      if (plain.is(row)) plain = nb::list(row);
      plain[i] = 0.0;
    }
    numbers.scalars = read_scalars(nb::tuple(plain), rules()[size_t(rule_->rule)].hyperparameters.size());
    return numbers;
  }

  Tensor read_number(nb::handle object) {
    Tensor number;
    if (!reader_.read(object, number) || element_count(number) != 1 || bytes_of(number.dtype) < 4) {
      const std::string given = nb::repr(nb::handle(object.type())).c_str();
      const std::string dtype = nb::hasattr(object, "dtype") ? text_of(object.attr("dtype")) : "none";
      throw nb::type_error(
          ("lr, betas, the scale of a loss and its overflow flag may be tensors of one float32 or float64 "
           "on the parameters' device; got " +
           given + " of dtype " + dtype + "; convert it")
              .c_str());
    }
    return number;
  }

  Scaling scaling_on(const Device& device, const nb::list& scalings) {
    Scaling found;
    for (nb::handle pair : scalings) {
      for (size_t i = 0; i < 2; ++i) {
        const nb::handle item = nb::borrow<nb::tuple>(pair)[i];
        if (item.is_none()) continue;
        const Tensor number = read_number(item);
        if (number.device == device) (i == 0 ? found.scale : found.overflow) = number;
      }
    }
    if (found.overflow && found.overflow->dtype != Dtype::float32) throw nb::type_error("found_inf is not float32");
    return found;
  }

  // A graph holds a whole step or nothing of it.
  void check_captures() const {
    const TorchParams *captured = nullptr, *other = nullptr;
    if (params_.size() < 2) return;
    for (const TorchParams& params : params_) {
      if (!params.is_idle()) (params.is_captured() ? captured : other) = &params;
    }
    if (!captured || !other) return;
    throw std::runtime_error(
        "this step would become part of a CUDA graph on " + name_of(captured->device) + ", but not what it does on " +
        name_of(other->device) + ", which would be done now and never by a replay; " +
        (other->is_processor() ? "make an optimizer of their own for the parameters on the CPU"
                               : "capture the current stream of " + name_of(other->device) +
                                     " too, or make an optimizer of their own for the parameters there"));
  }

  // Raises a Python error that names the parameter.
  [[noreturn]] void raise_for(const ArgumentError& error, const nb::callable& name) {
    const auto object_at = [&](int64_t position) -> nb::handle {
      const auto found = std::ranges::find(held_, position, &Parts::position);
      return found == held_.end() ? nb::handle() : found->param;
    };
    if (error.other >= 0 && error.other != error.index && error.operand == Operand::param &&
        object_at(error.index).is(object_at(error.other)))
      throw Repeated("a parameter stands in the optimizer twice");
    flatstep::raise(error, {"param ", "grad of ", [&](int64_t at) { return nb::cast<std::string>(name(at)); }});
  }

  std::vector<StateOfRule> rules_;
  const Target* target_;
  TorchReader reader_;
  Backends backends_;
  std::deque<TorchParams> params_;  // by device and rule, in the order in which they were met

  // Of the step under way.
  const StateOfRule* rule_ = nullptr;  // of the group under way
  GroupNumbers numbers_;
  Py_ssize_t next_state_;  // where PyDict_Next goes on
  std::optional<TailOptions> tail_;
  bool keeps_averages_ = false;
  TorchLimits limits_;
  std::vector<Parts> held_;  // so that the memory stays put until the step is done
  nb::list unready_;         // positions of parameters that cannot be taken as they are
};

}  // namespace

void bind_torch(nb::module_& module) {
  nb::exception<Repeated>(module, "Repeated", PyExc_ValueError);
  nb::class_<TorchStepper>(module, "TorchStepper")
      .def(nb::init<nb::list, nb::tuple, nb::handle, nb::list>(),
           nb::sig("def __init__(self, rules: list[tuple[str, list[str]]], plain_types: tuple[type, ...], "
                   "exchange_api: object, backends: list[object], /) -> None"))
      .def("step", &TorchStepper::step,
           nb::sig("def step(self, groups: list[tuple[list[typing.Any], tuple[typing.Any, ...], int]], "
                   "state: dict[typing.Any, typing.Any], stand_ins: dict[int, tuple[typing.Any, ...] | None], "
                   "scalings: list[tuple[typing.Any, ...]], capturable: bool, "
                   "name: collections.abc.Callable[[int], str], threads: int, "
                   "completion: list[collections.abc.Callable[[], object]], "
                   "always: list[collections.abc.Callable[[], object]], "
                   "limits: tuple[float | None, bool, list[int], "
                   "collections.abc.Callable[[list[float], bool], tuple[float, bool]] | None, typing.Any] | None, /) "
                   "-> tuple[list[int], list[typing.Any]] | tuple[list[int], list[typing.Any], float | None, bool]"))
      .def("set_tail", &TorchStepper::set_tail,
           nb::sig("def set_tail(self, zeroes_gradients: bool, keeps_averages: bool, in_own_dtype: bool, "
                   "is_interpolated: bool, decay: float, /) -> None"))
      .def_prop_ro("target", &TorchStepper::target);
}

}  // namespace flatstep
