"""
The bilinear game: paths in the plane
=====================================

In the game :math:`f(x, y) = x y`, x descends and y ascends. The solution is the origin. It is the smallest problem on
which gradient descent fails: the gradient always points across the line to the solution, so that the players circle.
Optimistic optimizers also step along the change of the gradient. This turns the circle into a spiral that ends at the
solution.
"""

# %%
# The four optimizers
# -------------------
#
# All start at (1, 2). ``OptimisticAdam`` has the numbers of the example in optax's documentation: the learning rate is
# 1, ``alpha`` is 0.01 and ``beta`` is 1, so that a step is 0.01 times the direction and once its change.

import matplotlib.pyplot as plt
import numpy as np

import flatstep

OPTIMIZERS = {
    "Adam": lambda point: flatstep.Adam(point, 1e-2),
    "AMSGrad": lambda point: flatstep.AMSGrad(point, 1e-2),
    "OptimisticAdam": lambda point: flatstep.OptimisticAdam(
        point, 1.0, alpha=1e-2, beta=1.0
    ),
    "OptimisticGradientDescent": lambda point: flatstep.OptimisticGradientDescent(
        point, 0.1
    ),
}
STEPS = 1024


def play(make_optimizer):
    """The points at the start and after each step."""
    point = np.array([1.0, 2.0])
    optimizer = make_optimizer(point)
    path = [point.copy()]
    for _ in range(STEPS):
        x, y = point
        optimizer.step(
            np.array([y, -x])
        )  # the gradients of f and, since y ascends, of -f
        path.append(point.copy())
    return np.array(path)


paths = {name: play(make_optimizer) for name, make_optimizer in OPTIMIZERS.items()}
distances = {name: np.hypot(*path.T) for name, path in paths.items()}
for name, distance in distances.items():
    print(
        f"{name:<26} distance after {STEPS} steps: {distance[-1]:.6f}, smallest: {distance.min():.6f}"
    )

# %%
# The paths
# ---------
#
# Adam and AMSGrad go round the solution. Both optimistic optimizers end near it.

figure, axes = plt.subplots(
    2, 2, figsize=(8, 8), sharex=True, sharey=True, layout="constrained"
)
for panel, (name, path) in zip(axes.flat, paths.items(), strict=True):
    panel.plot(*path.T, color="#0072b2", linewidth=1.2, label="path")
    panel.plot(*path[0], "o", color="#222222", label="start")
    panel.plot(*path[-1], "s", color="#e07b00", label=f"after {STEPS} steps")
    panel.plot(0, 0, "+", color="#222222", markersize=12, label="solution")
    panel.set(title=name, aspect="equal", xlim=(-3, 3), ylim=(-3, 3))
for panel in axes[1]:
    panel.set_xlabel("x, which descends")
for panel in axes[:, 0]:
    panel.set_ylabel("y, which ascends")
axes[0, 0].legend(loc="lower left", fontsize=8)

# %%
# The distances
# -------------

figure, panel = plt.subplots(figsize=(7, 4), layout="constrained")
for name, distance in distances.items():
    panel.plot(distance, label=name)
panel.set(
    yscale="log", xlabel="step", ylabel="distance from the solution", ylim=(1e-5, 10)
)
panel.legend(loc="lower left")
plt.show()
