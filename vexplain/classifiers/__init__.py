"""Small convolutional networks as Flax NNX modules, and any NNX module as a pure function."""

from vexplain.classifiers.functionalize import functionalize as functionalize
from vexplain.classifiers.lenet import FlowerNet as FlowerNet
from vexplain.classifiers.lenet import LeNet as LeNet
