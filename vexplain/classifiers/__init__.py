"""Convolutional networks as Flax NNX modules, weights for them, and any NNX module as a pure function.

The paper's networks for MNIST and an8Flower, and published ones. Images in [0, 1] go in; the published
networks normalize them by `mean` and `std`, one number a channel. `num_classes` scores come out. `rngs` draws
the weights.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
