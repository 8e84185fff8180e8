"""Networks that others published for JAX, as they come from PyPI: which of their layers are understood."""
