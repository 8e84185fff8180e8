"""Convolutional networks as Flax NNX modules, weights for them, and any NNX module as a pure function.

The paper's networks for MNIST and an8Flower, and the published ones that people use; images in [0, 1] go in,
mean and scale are inside.
"""

from vexplain.classifiers.alexnet import VGGF as VGGF
from vexplain.classifiers.alexnet import AlexNet as AlexNet
from vexplain.classifiers.all_conv import AllConvNet as AllConvNet
from vexplain.classifiers.convnext import ConvNeXt as ConvNeXt
from vexplain.classifiers.functionalize import functionalize as functionalize
from vexplain.classifiers.lenet import FlowerNet as FlowerNet
from vexplain.classifiers.lenet import LeNet as LeNet
from vexplain.classifiers.pretrained import NAMES as NAMES
from vexplain.classifiers.pretrained import Pretrained as Pretrained
from vexplain.classifiers.pretrained import build as build
from vexplain.classifiers.pretrained import pretrained as pretrained
from vexplain.classifiers.resnet import ResNet as ResNet
from vexplain.classifiers.small import SMALL_NAMES as SMALL_NAMES
from vexplain.classifiers.small import build_small as build_small
from vexplain.classifiers.vgg import VGG as VGG
from vexplain.classifiers.vit import VisionTransformer as VisionTransformer
from vexplain.classifiers.weights import place_weights as place_weights
from vexplain.classifiers.weights import read_weights as read_weights
