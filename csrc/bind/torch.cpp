// torch tensors -> a step: walks parameter groups, gradients and state in one call, and caches nothing between calls,
// for torch moves all of them in many ways. Links against no torch.
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <cmath>
#include <optional>
#include <stdexcept>

#include "bind.h"
#include "describe.h"
#include "running.h"
#include "torch_reader.h"

namespace flatstep {

namespace {

// A parameter stands twice in one step; it must be stepped twice.
struct Repeated : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A 0-d tensor in which torch counts a parameter's updates.
struct Counter {
  void* data;
  bool is_double;

  double get() const { return is_double ? *static_cast<double*>(data) : double(*static_cast<float*>(data)); }
  void set(double value) const {
    if (is_double) {
      *static_cast<double*>(data) = value;
    } else {
      *static_cast<float*>(data) = float(value);
    }
  }
};

// What stands for one parameter in a step: itself, its gradient and its state, or what the caller made for them.
struct Parts {
  nb::object param, grad, step;
  nb::object state[max_slots];
};

class TorchStepper {
 public:
  // `keys` are those of a parameter's state: for the count of updates, then for each slot.
  TorchStepper(std::string_view rule, std::vector<std::string> keys, nb::tuple plain_types, nb::handle exchange_api)
      : rule_(find_rule(rule)), target_(&chosen_target()), reader_(std::move(plain_types), exchange_api) {
    if (rule_ < 0) throw nb::key_error("no such rule");
    if (keys.size() != rules()[size_t(rule_)].slots.size() + 1) throw nb::value_error("expected a key a slot");
    for (const std::string& key : keys) keys_.push_back(nb::steal(PyUnicode_InternFromString(key.c_str())));
    keys.erase(keys.begin());
    step_.emplace(rule_, keys);
  }

  // One step over groups of (parameters, row of scalars without count). Returns the positions, counted over all
  // groups, of parameters that cannot be taken as they are, and then nothing was done; and those that were stepped.
  // `stand_ins` has by position what to take instead: (param, grad, step, *slots).
  nb::tuple step(nb::list groups, nb::dict state, nb::dict stand_ins, nb::callable name, int threads) {
    const Forgetting at_the_end{*this};
    gather(groups, state, stand_ins, name);
    nb::list stepped;
    if (wanting_.size() == 0) {
      const std::vector<Job>& jobs = step_->jobs(scalars_, *target_);
      unlocked([&] { run(jobs.data(), int64_t(jobs.size()), Team::openmp, threads); });
      for (const Counter& counter : counters_) counter.set(counter.get() + 1);
      for (const nb::object& param : stepped_) stepped.append(param);
    }
    return nb::make_tuple(wanting_, stepped);
  }

  std::string_view target() const { return target_->name; }

 private:
  void forget() {
    step_->clear();
    reader_.forget();
    scalars_.clear();
    counters_.clear();
    held_.clear();
    stepped_.clear();
    positions_of_.clear();
    wanting_ = nb::list();
  }

  // Whatever happens, a step leaves no references behind.
  struct Forgetting {
    TorchStepper& stepper;
    ~Forgetting() { stepper.forget(); }
  };

  void gather(const nb::list& groups, const nb::dict& state, const nb::dict& stand_ins, const nb::callable& name) {
    next_state_ = 0;
    try {
      int64_t position = 0;
      for (nb::handle group : groups) {
        const nb::tuple pair = nb::borrow<nb::tuple>(group);
        row_ = read_scalars(pair[1], rules()[size_t(rule_)].hyperparameters.size());
        row_begins_ = true;
        for (nb::handle param : nb::borrow<nb::list>(pair[0])) take(position++, param, state, stand_ins);
      }
      if (wanting_.size() == 0) step_->check_overlap();
    } catch (const Refusal& refusal) {
      raise_for(refusal, name);
    }
  }

  void take(int64_t position, nb::handle param, const nb::dict& state, const nb::dict& stand_ins) {
    static PyObject* const grad_name = PyUnicode_InternFromString("grad");
    nb::object grad = param.attr(grad_name);
    if (grad.is_none()) {
      pass_by(state, param);
      return;
    }
    Parts parts{nb::borrow(param), std::move(grad), {}, {}};
    const bool is_stand_in = stand_ins.size() > 0 && stand_ins.contains(position);
    if (is_stand_in) {
      replace(parts, nb::borrow<nb::tuple>(stand_ins[nb::int_(position)]));
    } else if (!find_state(parts, state)) {
      wanting_.append(position);
      return;
    }
    if (!add(position, parts)) {
      if (is_stand_in)
        throw Refusal{Stream::param, position, "is of a kind that cannot be stepped; use torch.optim for it"};
      wanting_.append(position);
      return;
    }
    stepped_.push_back(nb::borrow(param));
    positions_of_.push_back(position);
    held_.push_back(std::move(parts));
  }

  static void replace(Parts& parts, const nb::tuple& stand_in) {
    parts.param = stand_in[0];
    parts.grad = stand_in[1];
    parts.step = stand_in[2];
    for (size_t slot = 0; slot + 3 < stand_in.size(); ++slot) parts.state[slot] = stand_in[slot + 3];
  }

  // False where there is none yet, or not all of it.
  bool find_state(Parts& parts, const nb::dict& state) {
    const nb::object own = find_next(state, parts.param);
    if (!own.is_valid() || !PyDict_Check(own.ptr())) return false;
    parts.step = find(own, keys_[0]);
    bool complete = parts.step.is_valid();
    for (size_t slot = 0; slot + 1 < keys_.size(); ++slot) {
      parts.state[slot] = find(own, keys_[slot + 1]);
      complete = complete && parts.state[slot].is_valid();
    }
    return complete;
  }

  // The state of a parameter. State is made in the order of parameters, so that the next entry is it, as a rule, and
  // saves a look-up, for which torch computes hashes in Python.
  nb::object find_next(const nb::dict& state, nb::handle param) {
    const nb::object next = pass_by(state, param);
    return next.is_valid() ? next : find(state, param);
  }

  // The next entry of the state, if it is the parameter's.
  nb::object pass_by(const nb::dict& state, nb::handle param) {
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

  bool add(int64_t position, const Parts& parts) {
    TensorLeaf leaf{position, {}, {}, {}, 0};
    Tensor count;
    if (!reader_.read_as_it_means(parts.param, leaf.param) || !reader_.read_as_it_means(parts.grad, leaf.grad) ||
        !reader_.read(parts.step, count))
      return false;
    for (size_t slot = 0; slot + 1 < keys_.size(); ++slot) {
      if (!reader_.read(parts.state[slot], leaf.state[slot])) return false;
    }
    if (count.axes != 0 || count.item_bytes < 4) return false;
    const Counter counter{count.data, count.item_bytes == 8};
    leaf.scalars = row_of(position, counter.get());
    if (!step_->add(leaf)) return false;
    counters_.push_back(counter);
    return true;
  }

  // The index of the group's row for parameters that were updated so often.
  int64_t row_of(int64_t position, double updates) {
    constexpr double most = 0x1p62;
    if (!(updates >= 0 && updates < most) || updates != std::floor(updates)) {
      throw Refusal{Stream::param, position,
                    "has a step of " + std::to_string(updates) + ", expected a whole number from 0 on"};
    }
    const int64_t count = int64_t(updates) + 1;
    if (row_begins_ || scalars_.back().count != count) {
      scalars_.push_back(row_);
      scalars_.back().count = count;
      scalars_.back().is_initial_step = count == 1;
      row_begins_ = false;
    }
    return int64_t(scalars_.size()) - 1;
  }

  // Raises a refusal as a Python error that names the parameter.
  [[noreturn]] void raise_for(const Refusal& refusal, const nb::callable& name) {
    const auto object_at = [&](int64_t position) -> nb::handle {
      for (size_t i = 0; i < stepped_.size(); ++i) {
        if (positions_of_[i] == position) return stepped_[i];
      }
      return {};
    };
    if (refusal.other >= 0 && refusal.stream == Stream::param && object_at(refusal.leaf).is(object_at(refusal.other)))
      throw Repeated("a parameter stands in the optimizer twice");
    flatstep::raise(refusal, {"param ", "grad of ", [&](int64_t at) { return nb::cast<std::string>(name(at)); }});
  }

  int rule_;
  const Target* target_;
  Reader reader_;
  std::vector<nb::object> keys_;
  std::optional<TensorStep> step_;

  // Of the step under way.
  Scalars row_;
  bool row_begins_;
  Py_ssize_t next_state_;  // where PyDict_Next goes on
  std::vector<Scalars> scalars_;
  std::vector<Counter> counters_;
  std::vector<Parts> held_;  // so that the memory stays put until the step is done
  std::vector<nb::object> stepped_;
  std::vector<int64_t> positions_of_;
  nb::list wanting_;
};

}  // namespace

void bind_torch(nb::module_& module) {
  nb::exception<Repeated>(module, "Repeated", PyExc_ValueError);
  nb::class_<TorchStepper>(module, "TorchStepper")
      .def(nb::init<std::string_view, std::vector<std::string>, nb::tuple, nb::handle>(), nb::arg("rule"),
           nb::arg("keys"), nb::arg("plain_types"), nb::arg("exchange_api").none(),
           nb::sig("def __init__(self, rule: str, keys: list[str], plain_types: tuple[type, ...], "
                   "exchange_api: object | None) -> None"))
      .def("step", &TorchStepper::step, nb::arg("groups"), nb::arg("state"), nb::arg("stand_ins"), nb::arg("name"),
           nb::arg("threads"),
           nb::sig("def step(self, groups: list[tuple[list[typing.Any], tuple[float, ...]]], "
                   "state: dict[typing.Any, typing.Any], stand_ins: dict[int, tuple[typing.Any, ...]], "
                   "name: collections.abc.Callable[[int], str], threads: int) "
                   "-> tuple[list[int], list[typing.Any]]"))
      .def_prop_ro("target", &TorchStepper::target);
}

}  // namespace flatstep
