"""Convolutional networks as Flax NNX modules, weights for them, and any NNX module as a pure function.

The paper's networks for MNIST and an8Flower, and the published ones that people use; images in [0, 1] go in,
mean and scale are inside.
"""

from vexplain.classifiers._functionalize import functionalize as functionalize
from vexplain.classifiers._pretrained import NAMES as NAMES
from vexplain.classifiers._pretrained import Pretrained as Pretrained
from vexplain.classifiers._pretrained import build as build
from vexplain.classifiers._pretrained import pretrained as pretrained
from vexplain.classifiers.alexnet import VGGF as VGGF
from vexplain.classifiers.alexnet import AlexNet as AlexNet
from vexplain.classifiers.all_conv import AllConvNet as AllConvNet
from vexplain.classifiers.convnext import ConvNeXt as ConvNeXt
from vexplain.classifiers.lenet import FlowerNet as FlowerNet
from vexplain.classifiers.lenet import LeNet as LeNet
from vexplain.classifiers.resnet import ResNet as ResNet
from vexplain.classifiers.small import SMALL_NAMES as SMALL_NAMES
from vexplain.classifiers.small import build_small as build_small
from vexplain.classifiers.training import TrainState as TrainState
from vexplain.classifiers.training import accuracy as accuracy
from vexplain.classifiers.training import confusion as confusion
from vexplain.classifiers.training import supervised as supervised
from vexplain.classifiers.training import train as train
from vexplain.classifiers.training import training_report as training_report
from vexplain.classifiers.vgg import VGG as VGG
from vexplain.classifiers.vit import VisionTransformer as VisionTransformer
from vexplain.classifiers.weights import place_weights as place_weights
from vexplain.classifiers.weights import read_weights as read_weights
