"""Where pickles of older versions look for FlatParameter. Use flatstep.torch."""

from ._flat import FlatParameter as FlatParameter
