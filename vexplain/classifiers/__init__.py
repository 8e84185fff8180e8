"""Convolutional networks as Flax NNX modules, weights for them, and any NNX module as a pure function.

The paper's networks for MNIST and an8Flower, and the published ones that people use; images in [0, 1] go in,
mean and scale are inside.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
