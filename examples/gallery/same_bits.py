"""
The same bits from every target and any number of threads
=========================================================

A small network is trained on handwritten digits, once for each target that this machine can run and for one, two and
three threads. The weights of all runs are the same, bit for bit.
"""

# %%
# One training run
# ----------------
#
# ``FLATSTEP_TARGET`` chooses the instructions. It is read when an optimizer is made. ``set_num_threads`` sets the
# number of threads. The hidden layer has 1,024 units, so that the step is large enough to be split among threads.
#
# The gradients come from NumPy's matrix products, which run on a library of their own. Their bits are the same here
# because the runs share one process on one machine. flatstep promises the bits of its steps, and no more than these.

import hashlib
import os

import matplotlib.pyplot as plt
import numpy as np

import flatstep
from flatstep.demo import digits

STEPS = 30
images, labels = digits.load().train


def train(target, threads):
    """The loss after each step, and a hash of the weights after the last one."""
    os.environ["FLATSTEP_TARGET"] = target
    flatstep.set_num_threads(threads)
    rng = np.random.default_rng(0)
    sizes = {"w1": (64, 1024), "b1": (1024,), "w2": (1024, 10), "b2": (10,)}
    params = {
        name: 0.1 * rng.standard_normal(size, np.float32)
        for name, size in sizes.items()
    }
    optimizer = flatstep.AMSGrad(params, learning_rate=1e-3)
    assert optimizer.target == target
    losses = []
    for step in range(STEPS):
        batch = digits.Labelled(images[step * 16 :][:64], labels[step * 16 :][:64])
        losses.append(digits.loss_and_accuracy(params, batch)[0])
        optimizer.step(digits.gradients(params, batch))
    weights = hashlib.sha256(b"".join(param.tobytes() for param in params.values()))
    return losses, weights.hexdigest()


forced, before = os.environ.get("FLATSTEP_TARGET"), flatstep.get_num_threads()
runs = {
    (target, threads): train(target, threads)
    for target in flatstep.targets()
    for threads in (1, 2, 3)
}
for (target, threads), (_, weights) in runs.items():
    print(f"{target:<9} {threads} thread{'s' if threads > 1 else ' '}  {weights[:32]}")

# %%
# One hash, and so one curve: the losses of all runs lie on each other.

hashes = {weights for _, weights in runs.values()}
print(f"{len(runs)} runs, {len(hashes)} hash")

figure, panel = plt.subplots(figsize=(7, 4), layout="constrained")
widths = np.linspace(9, 1, len(runs))
for ((target, threads), (losses, _)), width in zip(runs.items(), widths, strict=True):
    panel.plot(losses, linewidth=width, label=f"{target}, threads: {threads}")
panel.set(
    xlabel="step",
    ylabel="loss of the batch",
    title=f"{len(runs)} runs, {len(hashes)} hash of the weights",
)
panel.legend(fontsize=8, title="target")
plt.show()

# %%
# The settings of the process are set back for the examples that run after this one.

flatstep.set_num_threads(before)
if forced is None:
    del os.environ["FLATSTEP_TARGET"]
else:
    os.environ["FLATSTEP_TARGET"] = forced
