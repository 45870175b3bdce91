"""Arguments that several optimizers have, and what the front ends call them. For the declarations beside this file."""

from __future__ import annotations

from .declaration import Number, Option

ALPHA = Number(name="alpha", default=1.0, meaning="weight of the direction")
BETA = Number(name="beta", default=1.0, meaning="weight of the direction's change, the optimism")
B1 = Number(name="b1", default=0.9, meaning="decay rate of the first moment", at_least=0, below=1)
B2 = Number(name="b2", default=0.999, meaning="decay rate of the second moment", at_least=0, below=1)
EPS = Number(name="eps", default=1e-8, meaning="added to the denominator", at_least=0)
EPS_ROOT = Number(name="eps_root", default=0.0, meaning="added under the square root", at_least=0)
LEARNING_RATE = Number(name="learning_rate", default=None, meaning="step size", at_least=0, per_leaf=True)
WEIGHT_DECAY = Number(
    name="weight_decay",
    default=0.0,
    meaning="strength of weight decay",
    more="p times it is added to the gradient",
    at_least=0,
    per_leaf=True,
)

MU_DTYPE = Option(
    name="mu_dtype",
    default=None,
    meaning="dtype in which mu is stored",
    more="bfloat16 halves it for float32 parameters",
    if_none="the parameter's",
    is_dtype=True,
)
DECOUPLED = Option(
    name="decoupled_weight_decay",
    default=False,
    meaning="whether weight decay is added to what the learning rate multiplies, as in AdamW, and not to the gradient",
)
MAXIMIZE = Option(name="maximize", default=False, meaning="whether to ascend")

ALL_HAVE = (WEIGHT_DECAY, DECOUPLED, MAXIMIZE)
"""The last arguments of every optimizer's own."""

MAX_NORM = Number(
    name="max_norm",
    default=None,
    meaning="largest norm of all gradients together",
    more="where they have a larger one, they are scaled down to it",
    if_none="no limit",
    at_least=0,
    may_be_unset=True,
)
SKIP_NONFINITE = Option(
    name="skip_nonfinite",
    default=False,
    meaning="whether a step with a gradient that is not finite changes nothing; see ``skipped``",
)
LIMITS = (MAX_NORM, SKIP_NONFINITE)
"""What every optimizer asks of its gradients, by keyword."""

EMA_DECAY = Number(
    name="ema_decay",
    default=None,
    meaning="decay rate of an exponential moving average of each parameter, which steps update; see ``ema``",
    if_none="no averages",
    at_least=0,
    below=1,
)
EMA_START = Option(
    name="ema_start",
    default="copy",
    meaning='what averages start from: ``"copy"``, the parameter after its first step, or ``"zero"``',
    choices=("copy", "zero"),
)
EMA_DEBIAS = Option(
    name="ema_debias",
    default=False,
    meaning="whether ``ema`` corrects the start at zero, as ``optax.ema`` does",
)
EMA_DTYPE = Option(
    name="ema_dtype",
    default=None,
    meaning="dtype of the averages: the parameter's, or that in which its steps compute",
    if_none="the latter, float32 for float16",
    is_dtype=True,
)
ZERO_GRADS = Option(
    name="zero_grads",
    default=False,
    meaning="whether a step sets the gradients to zero where it has read them",
)
AROUND = (*LIMITS, EMA_DECAY, EMA_START, EMA_DEBIAS, EMA_DTYPE, ZERO_GRADS)
"""What the optimizers of ``flatstep`` can do around their update, by keyword."""


MAX_CONSECUTIVE_ERRORS = Number(
    name="max_consecutive_errors",
    default=None,
    meaning="how many steps in a row ``skip_nonfinite`` skips, as in ``optax.apply_if_finite``",
    if_none="any number",
    at_least=0,
)
JAX_AROUND = (SKIP_NONFINITE, MAX_CONSECUTIVE_ERRORS, EMA_DECAY, EMA_START, EMA_DTYPE)
"""What the functions of ``flatstep.jax`` can do around their update, by keyword."""
JAX_MEANINGS = {
    "skip_nonfinite": "whether a step with a gradient that is not finite changes nothing; the state is that of "
    "``optax.apply_if_finite``",
    "ema_decay": "decay rate of an exponential moving average of each parameter, in [0, 1), kept at the end of the "
    "state; see ``flatstep.jax.ema``. A number, not a traced scalar",
}
"""What some of them mean there."""


def nesterov(default: bool) -> Option:
    """Whether Adam's momentum is Nesterov's."""
    return Option(name="nesterov", default=default, meaning="whether to use Nesterov's momentum")


# torch's own options, by keyword in every class of flatstep.torch.
TORCH_MODES = "foreach=None, maximize=False, capturable=False, differentiable=False, fused=None"
TORCH_ADAM_NAMES = {"learning_rate": "lr", "b1": "betas[0]", "b2": "betas[1]"}
TORCH_ADAM_KEYS = {"mu": "exp_avg", "nu": "exp_avg_sq"}
TORCH_ADAM_UNSAID = {"eps_root": 0.0, "nesterov": False, "mu_dtype": None}

# What optax's functions lack, by keyword. The default of weight_decay is no number: optax.inject_hyperparams would keep
# one in its state, which then would not be that of optax's function.
JAX_MORE = "weight_decay=None, decoupled_weight_decay=False, maximize=False"
