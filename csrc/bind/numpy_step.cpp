// The steps of flatstep.Optimizer: parameters checked when it is made, then one call a step.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <deque>

#include "describe.h"
#include "module.h"
#include "numpy_params.h"

namespace flatstep {

namespace {

class Stepper {
 public:
  // `params` are arrays of NumPy's, or DeviceMemory; `devices` are capsules of DeviceBackends, for the latter.
  Stepper(std::string_view rule, nb::list params, std::string_view first_moment, nb::callable name, bool on_openmp,
          nb::list devices)
      : rule_(find_rule(rule)),
        params_(std::move(params)),
        name_(std::move(name)),
        devices_(std::move(devices)),
        target_(&chosen_target()),
        team_(on_openmp ? Team::openmp : Team::own) {
    if (rule_ < 0) throw nb::key_error("no such rule");
    std::optional<Dtype> of_moment;
    if (!first_moment.empty()) of_moment = dtype_named(first_moment);
    with_named_errors([&] {
      for (size_t i = 0; i < params_.size(); ++i) {
        const DeviceMemory* memory = nullptr;
        nb::try_cast(params_[i], memory);
        group_on(memory ? memory->device() : Device{cpu_device, 0}).add(int64_t(i), params_[i], of_moment);
      }
      for (NumpyParams& group : groups_) group.check_new();
    });
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
      for (NumpyParams& group : groups_) {
        const NumpyParams::StateLayout placed = group.state_layout(slot);
        const nb::object buffer =
            group.is_processor() ? allocate(placed.bytes) : nb::cast(group.allocate(placed.bytes));
        group.place_state(slot, buffer, placed);
        state_.append(buffer);
        for (size_t i = 0; i < group.indices().size(); ++i)
          of_slot[size_t(group.indices()[i])] = nb::make_tuple(buffer, placed.offsets[i]);
      }
      places.append(of_slot);
    }
    return places;
  }

  // One step. rows[i] is the row of scalars that leaf i takes; None: all take the first. `progress` becomes the
  // stepper's with the step itself: no signal can strike between the two.
  void step(nb::list grads, nb::list scalars, const RowOfEach& rows, nb::object progress) {
    read_and_run(grads, scalars, rows, [this] {
      for (NumpyParams& group : groups_) group.prepare(*target_);
      launch_all(groups_, team_);
    });
    progress_ = std::move(progress);
  }

  // Whatever the caller counts with; goes on with each step.
  nb::object progress() const { return progress_; }
  void set_progress(nb::object progress) { progress_ = std::move(progress); }

  // The part of a step that falls to the elements first <= i < last of each job of the processor's. For tests of what
  // kernels do far out, where a whole step would touch more memory than a machine has.
  void step_range(nb::list grads, nb::list scalars, const RowOfEach& rows, int64_t first, int64_t last) {
    read_and_run(grads, scalars, rows, [=, this] {
      for (NumpyParams& group : groups_) {
        for (const Job& job : group.tensors.jobs(group.scalars, *target_)) {
          if (first < 0 || last > job.elements || !group.is_processor())
            throw std::out_of_range("elements outside of the step");
          job.kernel(*job.call, first, last);
        }
      }
    });
  }

  // Who carries out the steps: the processor's target, the devices, or both.
  std::string target() const {
    std::string names;
    for (const NumpyParams& group : groups_) {
      const std::string_view name = group.is_processor() ? target_->name : "cuda";
      if (names.find(name) == std::string::npos) names += (names.empty() ? "" : ", ") + std::string(name);
    }
    return names.empty() ? target_->name : names;
  }

  // For the garbage collector: whatever here may lead back to the optimizer.
  int visit(visitproc visit, void* argument) {
    for (nb::object* held : {static_cast<nb::object*>(&params_), static_cast<nb::object*>(&state_), &progress_,
                             static_cast<nb::object*>(&name_)})
      if (const int stop = held->ptr() ? visit(held->ptr(), argument) : 0) return stop;
    return 0;
  }
  void forget() {
    groups_.clear();
    params_.reset();
    state_.reset();
    progress_.reset();
    name_.reset();
  }

 private:
  NumpyParams& group_on(const Device& device) {
    for (NumpyParams& group : groups_) {
      if (group.device() == device) return group;
    }
    return groups_.emplace_back(device, rule_, device.type == cpu_device ? nullptr : &backend_for(device.type, devices_));
  }

  // Whatever happens, a step leaves no references behind.
  struct Forgetting {
    Stepper& stepper;
    ~Forgetting() {
      for (NumpyParams& group : stepper.groups_) group.end();
    }
  };

  // Reads and checks the tensors of a step; then carries it out with the interpreter unlocked.
  template <class F>
  void read_and_run(const nb::list& grads, const nb::list& scalars, const RowOfEach& rows, F&& carry_out) {
    if (grads.size() != params_.size() || (rows && rows->size() != params_.size()))
      throw nb::value_error("expected one gradient and one row a parameter");
    std::vector<Scalars> table;
    for (nb::handle row : scalars) table.push_back(read_scalars(row, rules()[size_t(rule_)].hyperparameters.size()));
    for (const int64_t row : rows ? *rows : std::vector<int64_t>{0}) {
      if (row < 0 || row >= int64_t(table.size())) throw nb::index_error("no such row of scalars");
    }
    const Forgetting at_the_end{*this};
    with_named_errors([&] {
      for (NumpyParams& group : groups_) take_grads(group, grads, table);
      // Parameters after all gradients, and those on devices first: to read another library's arrays runs its code,
      // which may do anything.
      for (const bool on_device : {true, false}) {
        for (NumpyParams& group : groups_) {
          if (group.is_processor() != on_device) group.add_params(rows);
        }
      }
      unlocked(carry_out);
    });
  }

  static void take_grads(NumpyParams& group, const nb::list& grads, const std::vector<Scalars>& table) {
    group.begin(table);
    for (size_t position = 0; position < group.indices().size(); ++position) {
      const nb::handle grad = grads[size_t(group.indices()[position])];
      if (!grad.is_none()) group.take_grad(position, grad);
    }
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
  nb::list params_, state_;
  nb::object progress_ = nb::none();
  nb::callable name_;
  nb::list devices_;  // keeps the backends
  const Target* target_;
  Team team_;
  std::deque<NumpyParams> groups_;  // in the order in which their devices were met
};

}  // namespace

void bind_step(nb::module_& module) {
  module.def("share", &share, nb::arg("object"), nb::arg("may_be_copy"),
             nb::sig("def share(object: object, may_be_copy: bool) -> typing.Any"));
  nb::class_<Stepper>(module, "Stepper", nb::type_slots(Collected<Stepper>::slots))
      .def(nb::init<std::string_view, nb::list, std::string_view, nb::callable, bool, nb::list>(), nb::arg("rule"),
           nb::arg("params"), nb::arg("first_moment"), nb::arg("name"), nb::arg("on_openmp"), nb::arg("devices"),
           nb::sig("def __init__(self, rule: str, params: list[typing.Any], first_moment: str, "
                   "name: collections.abc.Callable[[int], str], on_openmp: bool, devices: list[object]) -> None"))
      .def("make_state", &Stepper::make_state, nb::arg("allocate"),
           nb::sig("def make_state(self, allocate: collections.abc.Callable[[int], typing.Any]) "
                   "-> list[list[tuple[typing.Any, int]]]"))
      .def("step", &Stepper::step, nb::arg("grads"), nb::arg("scalars"), nb::arg("rows").none(),
           nb::arg("progress").none(),
           nb::sig("def step(self, grads: list[typing.Any], scalars: list[tuple[float, ...]], "
                   "rows: collections.abc.Sequence[int] | None, progress: object) -> None"))
      .def("step_range", &Stepper::step_range, nb::arg("grads"), nb::arg("scalars"), nb::arg("rows").none(),
           nb::arg("first"), nb::arg("last"),
           nb::sig("def step_range(self, grads: list[typing.Any], scalars: list[tuple[float, ...]], "
                   "rows: collections.abc.Sequence[int] | None, first: int, last: int) -> None"))
      .def_prop_rw("progress", &Stepper::progress, &Stepper::set_progress,
                   nb::for_getter(nb::sig("def progress(self, /) -> typing.Any")),
                   nb::for_setter(nb::arg("value").none()))
      .def_prop_ro("target", &Stepper::target);
}

}  // namespace flatstep
