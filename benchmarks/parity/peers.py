"""Maps of Captum and pytorch-grad-cam: channels last, of one image at a time, each on a copy of the network.

One image, because pytorch-grad-cam's guided backpropagation keeps the first of a batch; a copy, because it
changes the network.
"""

import copy
import warnings
from collections.abc import Callable

import numpy as np
import torch
from captum import attr
from pytorch_grad_cam import (
    AblationCAM,
    GradCAM,
    GradCAMPlusPlus,
    GuidedBackpropReLUModel,
    HiResCAM,
    LayerCAM,
    XGradCAM,
)
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

Method = Callable[[nn.Module, nn.Module, torch.Tensor, int], np.ndarray]


def peers_maps(
    network: nn.Module, path: str, images: np.ndarray, targets: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns the maps of every method of the peers, by "peer/method", (batch, height, width, channels).

    Maps of pytorch-grad-cam other than the guided ones are scaled to [0, 1], as it returns them.

    Args:
        network: that takes images in [0, 1], channels first.
        path: of the module whose output the class activation maps are made of.
        images: (batch, height, width, 3).
        targets: (batch,), the classes.
    """
    maps: dict[str, list[np.ndarray]] = {name: [] for name in METHODS}
    for image, target in zip(images, targets, strict=True):
        for name, method in METHODS.items():
            own = copy.deepcopy(network)
            pixels = torch.from_numpy(np.moveaxis(image, -1, 0)[None].copy())
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Captum tells of its hooks
                maps[name].append(method(own, own.get_submodule(path), pixels, int(target)))
    return {name: np.stack(found) for name, found in maps.items()}


def _captum(make: Callable[..., attr.Attribution], **options) -> Method:
    def method(network, layer, pixels, target):
        explainer = make(network, layer)
        found = explainer.attribute(pixels.requires_grad_(), target=target, **options)
        if found.shape[-2:] != pixels.shape[-2:]:
            found = attr.LayerAttribution.interpolate(found, pixels.shape[-2:], "bilinear")
        return np.moveaxis(found.detach().numpy()[0], 0, -1)

    return method


def _guided_by_pytorch_grad_cam(network, layer, pixels, target):
    return GuidedBackpropReLUModel(network)(pixels, target)


def _scaled_cam(make: type) -> Method:
    def method(network, layer, pixels, target):
        with make(network, [layer]) as cam:
            return cam(pixels, [ClassifierOutputTarget(target)])[0][..., None]

    return method


def _guided_plus_plus(network, layer, pixels, target):
    """Its guided backpropagation times its map before scaling: what its example multiplies."""
    targets = [ClassifierOutputTarget(target)]
    with GradCAMPlusPlus(network, [layer]) as cam:
        cam(pixels, targets)
        activations, gradients = (
            found[0].numpy()
            for found in (cam.activations_and_grads.activations, cam.activations_and_grads.gradients)
        )
        raw = cam.get_cam_image(pixels, layer, targets, activations, gradients)
    small = torch.from_numpy(np.maximum(raw, 0))[:, None]
    enlarged = nn.functional.interpolate(small, pixels.shape[-2:], mode="bilinear").numpy()[0, 0]
    fresh = pixels.detach().clone()
    return _guided_by_pytorch_grad_cam(network, layer, fresh, target) * enlarged[..., None]


METHODS: dict[str, Method] = {
    "Captum/guided_backprop": _captum(lambda network, layer: attr.GuidedBackprop(network)),
    "Captum/deconvnet": _captum(lambda network, layer: attr.Deconvolution(network)),
    "Captum/grad_cam": _captum(attr.LayerGradCam, relu_attributions=True),
    "Captum/guided_grad_cam": _captum(attr.GuidedGradCam, interpolate_mode="bilinear"),
    "pytorch-grad-cam/guided_backprop": _guided_by_pytorch_grad_cam,
    "pytorch-grad-cam/grad_cam": _scaled_cam(GradCAM),
    "pytorch-grad-cam/grad_cam_plus_plus": _scaled_cam(GradCAMPlusPlus),
    "pytorch-grad-cam/layer_cam": _scaled_cam(LayerCAM),
    "pytorch-grad-cam/hires_cam": _scaled_cam(HiResCAM),
    "pytorch-grad-cam/xgrad_cam": _scaled_cam(XGradCAM),
    "pytorch-grad-cam/ablation_cam": _scaled_cam(AblationCAM),
    "pytorch-grad-cam/guided_grad_cam_plus_plus": _guided_plus_plus,
}
