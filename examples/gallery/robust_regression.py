"""
Robust regression as a min-max problem
======================================

A line is fitted to points of which a quarter are wrong. Least squares follows the wrong points. The least absolute
deviations do not:

.. math::
    \\min_w \\frac1n \\sum_i |x_i w - y_i| \\; = \\; \\min_w \\max_{|u_i| \\le 1} \\frac1n \\sum_i u_i (x_i w - y_i)

The right side is a game. The line w descends, and one weight u for each point ascends and stays in [-1, 1]. It is
linear in each of the two, as the game x y is, and so it is hard for optimizers that look at the gradient alone.
"""

# %%
# Points and the two exact answers
# --------------------------------
#
# The least absolute deviations are computed here by weighted least squares, repeated until nothing changes.

import matplotlib.pyplot as plt
import numpy as np

import flatstep

rng = np.random.default_rng(0)
N, WRONG = 60, 15
x = rng.uniform(-1, 1, N)
y = 2 * x + 0.5 + 0.1 * rng.standard_normal(N)
wrong = rng.choice(N, WRONG, replace=False)
y[wrong] = -3 + 0.3 * rng.standard_normal(WRONG)
X = np.stack([x, np.ones(N)], axis=1)

squares = np.linalg.lstsq(X, y, rcond=None)[0]
exact = squares
for _ in range(2000):
    weights = 1 / np.maximum(np.abs(X @ exact - y), 1e-9)
    exact = np.linalg.solve(X.T * weights @ X, X.T * weights @ y)


def loss(w):
    """The mean absolute deviation."""
    return np.abs(X @ w - y).mean()


print(
    f"least squares:             slope {squares[0]:.3f}, intercept {squares[1]:+.3f}, loss {loss(squares):.4f}"
)
print(
    f"least absolute deviations: slope {exact[0]:.3f}, intercept {exact[1]:+.3f}, loss {loss(exact):.4f}"
)

# %%
# The game
# --------
#
# One optimizer steps both players: a dict is its parameters. The gradient of u has the opposite sign, since u ascends.
# Both optimizers run at three learning rates, and with b1 = 0.5 and 0.9.


def play(make_optimizer, steps=2000):
    """The line after the last step, and how far the loss is above the exact one after each step."""
    params = {"w": np.zeros(2), "u": np.zeros(N)}
    optimizer = make_optimizer(params)
    gaps = []
    for _ in range(steps):
        optimizer.step({"w": X.T @ params["u"] / N, "u": (y - X @ params["w"]) / N})
        np.clip(params["u"], -1, 1, out=params["u"])
        gaps.append(loss(params["w"]) - loss(exact))
    return params["w"], np.array(gaps)


RATES = [0.01, 0.03, 0.1]
games = {
    (kind.__name__, b1, rate): play(
        lambda params, kind=kind, rate=rate, b1=b1: kind(params, rate, b1=b1)
    )
    for kind in (flatstep.Adam, flatstep.OptimisticAdam)
    for b1 in (0.5, 0.9)
    for rate in RATES
}
print("largest distance of the loss from the exact one over the last 200 steps:")
for (name, b1, rate), (_, gaps) in games.items():
    print(f"  {name:<14} b1={b1} learning rate {rate:<4}: {gaps[-200:].max():.5f}")

# %%
# With b1 = 0.5, the loss of OptimisticAdam stays within 0.01 of the exact one at all three learning rates. That of Adam
# does so at none. With b1 = 0.9, the default, neither of them comes near: much momentum works against optimism. So
# lower b1 first when a game does not settle.

figure, panels = plt.subplots(
    1, 2, figsize=(10, 4.2), sharey=True, layout="constrained"
)
for panel, b1 in zip(panels, (0.5, 0.9), strict=True):
    for rate, style in zip(RATES, (":", "--", "-"), strict=True):
        for name, color in {"Adam": "#e07b00", "OptimisticAdam": "#007f5f"}.items():
            gaps = np.maximum(games[name, b1, rate][1], 1e-6)
            panel.plot(
                gaps,
                style,
                color=color,
                linewidth=1.2,
                label=f"{name}, learning rate {rate}",
            )
    panel.set(title=f"b1 = {b1}", yscale="log", xlabel="step")
panels[0].set_ylabel("loss above the exact one")
panels[1].legend(fontsize=8, loc="lower left")

# %%
# The lines
# ---------

figure, panel = plt.subplots(figsize=(7, 4.5), layout="constrained")
right = np.setdiff1d(np.arange(N), wrong)
panel.scatter(x[right], y[right], s=18, color="#222222", label="points")
panel.scatter(
    x[wrong], y[wrong], s=18, color="#222222", marker="x", label="wrong points"
)
ends = np.array([-1.0, 1.0])
panel.plot(ends, squares[0] * ends + squares[1], color="#0072b2", label="least squares")
panel.plot(
    ends,
    exact[0] * ends + exact[1],
    color="#bbbbbb",
    linewidth=6,
    label="least absolute deviations, exact",
)
for name, color in {"Adam": "#e07b00", "OptimisticAdam": "#007f5f"}.items():
    slope, intercept = games[name, 0.5, 0.1][0]
    panel.plot(
        ends,
        slope * ends + intercept,
        color=color,
        label=f"{name}, b1 = 0.5, after 2000 steps",
    )
panel.set(xlabel="x", ylabel="y", ylim=(-6, 5))
panel.legend(fontsize=8, loc="lower right")
plt.show()
