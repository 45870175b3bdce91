"""A context in which JAX has float64, for every version of jax that flatstep.jax takes."""

try:
    from jax import enable_x64
except ImportError:  # jax 0.7
    from jax.experimental import enable_x64

__all__ = ["enable_x64"]
