"""The numbers of a parameter group: as torch.optim takes them when a group is made, and as floats for a step.

Used by optimizer.py and rules.py.
"""

from __future__ import annotations

from typing import Any

import torch

from . import devices

Group = dict[str, Any]

# Options that torch's optimizers do not have, at the values that give torch's behaviour. A group leaves them out then:
# the distributed checkpoints of torch can be loaded only into groups that have no keys beside torch's.
UNSAID: Group = {"convention": "torch", "eps_root": 0.0, "nesterov": False, "mu_dtype": None}

# Options that older versions of torch did not have, at the values that torch gives them in older checkpoints.
LATER_OPTIONS: Group = {
    "maximize": False,
    "foreach": None,
    "capturable": False,
    "differentiable": False,
    "fused": None,
    "decoupled_weight_decay": False,
}

LARGEST = 2.0**128 - 2.0**104  # that float32 can hold
_WIDE = (torch.float64, torch.complex128)
_LABELS = {"b1": "betas[0]", "b2": "betas[1]"}  # what messages call them


def check_like_torch(defaults: Group) -> None:
    """ValueError or TypeError where torch.optim.Adam would not take the optimizer's own numbers."""
    given = UNSAID | defaults
    check_types(given)
    for name in ("lr", "eps", "eps_root", "weight_decay"):
        _check_bounds(name, given[name], float(given[name]) >= 0, "at least 0")
    for index, beta in enumerate(given["betas"]):
        _check_bounds(f"betas[{index}]", beta, 0 <= float(beta) < 1, "at least 0 and below 1")
    _check_tensors(given)


def _check_bounds(name: str, value: Any, is_within: bool, bounds: str) -> None:
    if not is_within:
        raise ValueError(f"{name} is {as_number(name, value):g}, expected a number {bounds}")


def _check_tensors(group: Group) -> None:
    """torch.optim keeps tensors of numbers from its foreach form, and betas must be of one kind."""
    first, second = (isinstance(beta, torch.Tensor) for beta in group["betas"])
    if first != second:
        raise ValueError("one of betas is a tensor and the other is not; pass two numbers or two tensors")
    for name, is_tensor in (("lr", isinstance(group["lr"], torch.Tensor)), ("betas", first)):
        if is_tensor and group["foreach"] and not group["capturable"]:
            raise ValueError(f"{name} as a tensor needs capturable=True or foreach=False")


def check_types(group: Group) -> None:
    """TypeError or ValueError where something in a group is not a number at all. Bounds are not looked at."""
    group = UNSAID | group
    _two(group["betas"])
    for name in ("lr", "eps", "eps_root", "weight_decay"):
        as_number(name, group[name])
    for index, beta in enumerate(group["betas"]):
        as_number(f"betas[{index}]", beta)
    for name in ("maximize", "decoupled_weight_decay"):
        as_flag(name, group[name])
    check_dtype("mu_dtype", group["mu_dtype"])


def step_numbers(group: Group) -> tuple[Group, Group]:
    """The numbers of a step by name: as floats, and those on a device, which the host does not read.

    Bounds are not looked at: torch.optim steps with any number, and schedulers move numbers slightly out of bounds.
    """
    b1, b2 = _two(group["betas"])
    given = {"lr": group["lr"], "b1": b1, "b2": b2}
    on_device = {name: value for name, value in given.items() if type(value) is not float and devices.holds(value)}
    given |= {"eps": group["eps"], "eps_root": group.get("eps_root", 0.0), "weight_decay": group["weight_decay"]}
    numbers = {
        name: value if type(value) is float else 0.0 if name in on_device else as_number(_LABELS.get(name, name), value)
        for name, value in given.items()
    }
    if any(map(LARGEST.__lt__, map(abs, numbers.values()))):
        _check_ranges(group, numbers)
    return numbers, on_device


def _check_ranges(group: Group, numbers: Group) -> None:
    """ValueError where a finite number is infinite in float32, and not every parameter of the group is wider."""
    if all(param.dtype in _WIDE for param in group["params"]):
        return
    for name, number in numbers.items():
        if LARGEST < abs(number) < float("inf"):
            label = _LABELS.get(name, name)
            raise ValueError(
                f"{label} is {number:g}, infinite in float32, in which the group's parameters are stepped; the limit "
                f"is {LARGEST:g}"
            )


def as_number(name: str, value: Any) -> float:
    """The value as a float. TypeError or ValueError in terms of its name where it is not one real number."""
    if type(value) is float:
        return value
    if isinstance(value, (bool, str, bytes)) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        raise TypeError(f"{name} is {value!r}, expected a number")
    if isinstance(value, torch.Tensor) and value.numel() != 1:
        raise ValueError(f"{name} is a tensor of shape {tuple(value.shape)}, expected a tensor of one number")
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} is {value!r}, expected a number") from None
    except OverflowError:  # an integer that no float can hold
        raise ValueError(f"{name} is {value!r}, too large for a float") from None


def as_flag(name: str, value: Any) -> float:
    """1.0 or 0.0 for a truth value or a number that stands for one. TypeError in terms of its name for any other."""
    if type(value) is bool:
        return float(value)
    try:
        if isinstance(value, (str, bytes)) or not hasattr(value, "__bool__"):
            raise TypeError
        return float(bool(value))
    except (TypeError, ValueError, RuntimeError):  # of arrays of several elements
        raise TypeError(f"{name} is {value!r}, expected True or False") from None


def check_dtype(name: str, dtype: Any) -> torch.dtype | None:
    """The dtype. TypeError where it is neither None nor a dtype of torch."""
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise TypeError(f"{name} is {dtype!r}, expected a torch.dtype or None")
    return dtype


def _two(betas: Any) -> tuple[Any, Any]:
    try:
        first, second = betas
    except TypeError:
        raise TypeError(f"betas is {betas!r}, expected two numbers") from None
    except ValueError:
        raise ValueError(f"betas is {betas!r}, expected two numbers") from None
    return first, second
