"""One row for each optimizer: what it is in every front end, in the oracle, in optax and in torch.optim.

All tables of the tests come from this one. To test a new optimizer, add a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import flatstep
import reference

Settings = dict[str, Any]

# Settings that are tested on every optimizer that has all of these numbers and options.
SETTINGS: dict[str, Settings] = {
    "default": {},
    "weight_decay": dict(weight_decay=0.1),
    "decoupled": dict(weight_decay=0.1, decoupled_weight_decay=True),
    "maximize": dict(maximize=True, weight_decay=0.1),
    "no_memory": dict(b1=0.0, b2=0.0),
    "eps_root": dict(eps_root=1e-6, eps=0.0),
    "eps_0": dict(eps=0.0),
    "eps_tiny": dict(eps=1e-300, eps_root=1e-310),
    "alpha_beta": dict(alpha=0.25, beta=0.7),
    "no_optimism": dict(beta=0.0),
    "pessimism": dict(alpha=1.0, beta=-0.5),
    "torch": dict(convention="torch"),
    "paper": dict(convention="paper"),
    "raw_mu": dict(bias_correction_mu=False),
    "raw_nu": dict(bias_correction_nu=False),
    "raw_mu_torch": dict(bias_correction_mu=False, convention="torch"),
    "raw": dict(bias_correction_mu=False, bias_correction_nu=False),
    "bias_correction": dict(bias_correction=True),
    "outside": dict(eps_in_sqrt=False),
    "initial_scale": dict(initial_scale=0.5),
}
# Those of them that an optimizer has follow one another in the row "schedules".
SCHEDULES: Settings = dict(
    learning_rate=lambda count: 0.1 / (1 + count),
    b1=lambda count: 0.9 - 0.05 * count,
    b2=lambda count: 0.99 - 0.05 * count,
    eps=lambda count: 1e-8 * (1 + count),
    decay=lambda count: 0.9 - 0.05 * count,
    weight_decay=lambda count: 0.01 * count,
)
# The options, beside the class, that give a state another meaning.
MEANINGS = ("convention", "nesterov", "centered")


@dataclass(frozen=True)
class TorchFace:
    """A class of flatstep.torch, with arguments that choose one rule of it."""

    name: str
    arguments: Settings = field(default_factory=dict)  # in torch's words
    own: Settings = field(default_factory=dict)  # what the class does by itself, in the words of NumPy's class
    peer: tuple[str, Settings] | None = None  # the class of torch.optim that it equals, and arguments that this needs
    rows: dict[str, Settings] | None = None  # instead of those of TORCH_SETTINGS, in NumPy's words


# Tested on every class of flatstep.torch that has these numbers and options; in NumPy's words.
TORCH_SETTINGS: dict[str, Settings] = {
    "default": {},
    "betas": dict(b1=0.5, b2=0.75),
    "eps": dict(eps=1e-3, eps_root=1e-4),
    **{name: SETTINGS[name] for name in ("weight_decay", "decoupled", "maximize", "alpha_beta", "no_optimism")},
}


@dataclass(frozen=True)
class Entry:
    """An optimizer. ``variants`` are options with which rows are tested, by a prefix of their names."""

    optimizer: type[flatstep.Optimizer]
    oracle: Callable[..., Any]
    jax: str | None = None  # the name of the function in flatstep.jax; optax_peers.py has what it equals in optax
    torch: tuple[TorchFace, ...] = ()
    variants: dict[str, Settings] = field(default_factory=lambda: {"": {}})
    more: dict[str, Settings] = field(default_factory=dict)  # rows beside those of SETTINGS
    varied: frozenset[str] | None = None  # the rows that are tested with every variant; default: all
    only: frozenset[str] | None = None  # those of SETTINGS that are tested; default: all that it has

    def has(self, settings: Iterable[str]) -> bool:
        """Whether these are numbers or options of the optimizer, and where values are given, choices that it has."""
        values = settings if isinstance(settings, dict) else {}
        choices = {a.name: getattr(a, "choices", ()) for a in self.optimizer._declaration.arguments}
        return all(
            hasattr(self.optimizer, name) and not (choices.get(name) and values.get(name) not in (None, *choices[name]))
            for name in settings
        )

    def rows(self) -> dict[str, Settings]:
        """What is tested, by name: the settings of NumPy's class."""
        rows = {name: own for name, own in SETTINGS.items() if self.has(own)}
        rows["schedules"] = {name: own for name, own in SCHEDULES.items() if self.has([name])}
        if self.only is not None:
            rows = {name: own for name, own in rows.items() if name in self.only}
        varied = {
            f"{prefix}{name}": {**own, **options}
            for prefix, options in self.variants.items()
            for name, own in rows.items()
            if not prefix or self.varied is None or name in self.varied
        }
        return {**varied, **self.more}


TABLE: list[Entry] = [
    Entry(
        flatstep.Adam,
        reference.adam,
        jax="adam",
        torch=(
            TorchFace("Adam", peer=("Adam", {})),
            TorchFace("Adam", rows={"nesterov": dict(nesterov=True)}),
        ),
        more={"nesterov": dict(nesterov=True)},
    ),
    Entry(
        flatstep.AdamW,
        reference.adamw,
        jax="adamw",
        torch=(TorchFace("AdamW", peer=("AdamW", {}), rows={"default": {}}),),
        more={"coupled": dict(decoupled_weight_decay=False)},
        only=frozenset({"default"}),
    ),
    Entry(
        flatstep.AMSGrad,
        reference.amsgrad,
        jax="amsgrad",
        torch=(
            TorchFace("AMSGrad", own=dict(convention="torch"), peer=("Adam", dict(amsgrad=True))),
            TorchFace("AMSGrad", rows={name: dict(convention=name) for name in ("optax", "paper")}),
            TorchFace("Adam", dict(amsgrad=True), dict(convention="torch"), ("Adam", {}), {"amsgrad": {}}),
        ),
    ),
    Entry(
        flatstep.OptimisticAdam,
        reference.optimistic_adam,
        jax="optimistic_adam_v2",
        torch=(TorchFace("OptimisticAdam"), TorchFace("OptimisticAdam", rows={"plain": dict(nesterov=False)})),
        variants={"": {}, "plain-": dict(nesterov=False)},
    ),
    Entry(
        flatstep.Lion,
        reference.oracle("lion", b2=0.99, weight_decay=1e-3, decoupled_weight_decay=True),
        jax="lion",
        torch=(TorchFace("Lion", own=dict(weight_decay=0.0)),),
        more={"coupled": dict(decoupled_weight_decay=False)},
    ),
    Entry(
        flatstep.OptimisticAMSGrad,
        reference.optimistic_amsgrad,
        jax="optimistic_amsgrad",
        torch=(
            TorchFace("OptimisticAMSGrad", own=dict(convention="torch")),
            TorchFace("OptimisticAMSGrad", rows={"optax": dict(convention="optax")}),
            TorchFace("OptimisticAdam", dict(amsgrad=True), dict(convention="torch"), rows={"amsgrad": {}}),
        ),
        variants={"": {}, "plain-": dict(nesterov=False)},
    ),
    Entry(
        flatstep.RMSProp,
        reference.rmsprop,
        jax="rmsprop",
        torch=(
            TorchFace("RMSprop", own=dict(decay=0.99, convention="torch"), peer=("RMSprop", {})),
            TorchFace(
                "RMSprop",
                own=dict(decay=0.99, convention="torch"),
                peer=("RMSprop", {}),
                rows={"all_slots": dict(centered=True, momentum=0.7)},
            ),
        ),
        variants={
            "": {},
            "centered-": dict(centered=True),
            "momentum-": dict(momentum=0.7),
            "centered-momentum-": dict(centered=True, momentum=0.7),
        },
        varied=frozenset({"default", "decoupled", "bias_correction", "torch", "schedules"}),
        more={
            "nesterov": dict(nesterov=True, momentum=0.7),
            "no_momentum": dict(momentum=0.0),
            "momentum_schedule": dict(momentum=lambda count: 0.7 / (1 + count)),
            "torch_momentum": dict(convention="torch", momentum=0.7, decoupled_weight_decay=True, weight_decay=0.1),
        },
    ),
    Entry(
        flatstep.OptimisticGradientDescent,
        reference.optimistic_gradient_descent,
        jax="optimistic_gradient_descent",
        torch=(TorchFace("OptimisticSGD"),),
    ),
]

JAX: dict[str, Entry] = {entry.jax: entry for entry in TABLE if entry.jax}
"""By the name of the function in flatstep.jax."""


def in_torch_words(entry: Entry, settings: Settings) -> Settings:
    """NumPy's settings as arguments of a class of flatstep.torch."""
    words = entry.optimizer._declaration.torch.names
    spelled = {words.get(name, name): value for name, value in settings.items() if name not in ("b1", "b2")}
    if settings.keys() & {"b1", "b2"}:
        spelled["betas"] = tuple(settings[name] for name in ("b1", "b2") if hasattr(entry.optimizer, name))
    return spelled
