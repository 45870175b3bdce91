"""
Where AMSGrad wins, and where it does not
=========================================

Reddi, Kale and Kumar ("On the Convergence of Adam and Beyond", ICLR 2018) made AMSGrad for problems in which large
gradients are rare. This example shows their problem, the three conventions of AMSGrad on it, and a problem on which
AMSGrad is slower than Adam.
"""

# %%
# A rare large gradient
# ---------------------
#
# x lies in [-1, 1]. One loss in 101 is :math:`1010 x`. Each of the others is :math:`-10 x`. The sum over one period is
# :math:`10 x`, so that x = -1 is best. Adam divides by the root of an average of squares. With b2 = 0.99 this average
# forgets most of a large square before the next one comes. The many small gradients then count too much, and they point
# to +1. AMSGrad divides by the largest average so far, which does not shrink.

import matplotlib.pyplot as plt

import flatstep
from flatstep.demo import counterexample, digits

RATE, B2 = counterexample.LEARNING_RATE, counterexample.B2
OPTIMIZERS = {
    "Adam": lambda x: flatstep.Adam(x, RATE, b2=B2),
    'AMSGrad, convention="paper"': lambda x: flatstep.AMSGrad(
        x, RATE, b2=B2, convention="paper"
    ),
    'AMSGrad, convention="torch"': lambda x: flatstep.AMSGrad(
        x, RATE, b2=B2, convention="torch"
    ),
    'AMSGrad, convention="optax"': lambda x: flatstep.AMSGrad(
        x, RATE, b2=B2, convention="optax"
    ),
}
means = {
    name: counterexample.by_period(counterexample.play(make))
    for name, make in OPTIMIZERS.items()
}
for name, mean in means.items():
    print(
        f"{name:<28} mean of x in the last period: {mean[-1]:+.2f} (the best x is {counterexample.BEST:+.0f})"
    )

# %%
# Three AMSGrads
# --------------
#
# The three conventions differ in the bias correction of nu, and this problem shows the difference. Its very first
# gradient is the large one. ``"optax"`` corrects nu before it takes the maximum. The correction of the first step
# multiplies by 100, so that the maximum stays about 60 times above any later nu, and steps are about 8 times smaller.
# ``"torch"`` corrects the maximum afterwards, and the correction fades. ``"paper"`` corrects nothing.

COLORS = ["#e07b00", "#0072b2", "#56b4e9", "#222222"]
figure, panel = plt.subplots(figsize=(7, 4.5), layout="constrained")
for (name, mean), color in zip(means.items(), COLORS, strict=True):
    steps = [counterexample.PERIOD * (period + 1) for period in range(len(mean))]
    panel.plot(steps, mean, color=color, linewidth=2, label=name)
panel.axhline(
    counterexample.BEST,
    color="#888888",
    linestyle="--",
    linewidth=1,
    label="the best x",
)
panel.set(
    xlabel="step", ylabel=f"x, mean of {counterexample.PERIOD} steps", ylim=(-1.1, 1.1)
)
panel.legend(loc="center right", fontsize=9, bbox_to_anchor=(1, 0.62))

# %%
# A problem on which AMSGrad does not win
# ---------------------------------------
#
# A network with one hidden layer learns handwritten digits (those of scikit-learn). Gradients are large at the start
# and become small. AMSGrad keeps dividing by the large ones, so that its steps become smaller than Adam's. With the
# same learning rate, its loss is higher after each of these epochs.

EPOCHS = 25
data = digits.load()
histories = {
    name: list(digits.train(make, data, EPOCHS))
    for name, make in digits.OPTIMIZERS.items()
}
for name, history in histories.items():
    last = history[-1]
    print(
        f"{name:<8} loss on the training images {last.train_loss:.4f}, on the test images {last.test_loss:.4f}"
    )

figure, panel = plt.subplots(figsize=(7, 4), layout="constrained")
for name, color in {"Adam": "#e07b00", "AMSGrad": "#0072b2"}.items():
    history = histories[name]
    panel.plot(
        [epoch.train_loss for epoch in history],
        "--",
        color=color,
        label=f"{name}, training images",
    )
    panel.plot(
        [epoch.test_loss for epoch in history],
        color=color,
        label=f"{name}, test images",
    )
panel.set(yscale="log", xlabel="epoch", ylabel="cross-entropy")
panel.legend()
plt.show()

# %%
# So try AMSGrad where a few rare samples carry the signal, or where Adam does not settle. Do not expect it to be faster
# elsewhere.
