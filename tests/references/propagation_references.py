"""Makes `propagation.npz`: a small network of PyTorch, by Zennit 0.5.1 and Captum 0.9.0, in float64.

    python -m tests.references.propagation_references      (with the extra `parity`; in `make references`)

A convolution with stride and padding, a batch normalization with some negative scales, ReLU, max pooling, a
convolution, ReLU, the mean over the image, and a dense layer. Pixels are normalized before, outside of what
Zennit and Captum see. Captum's DeepLIFT is given average pooling, for it takes the indices of max pooling of
the image for the baseline too (its issue 1276); its LRP fails at a flattening in PyTorch 2.13.
"""

from pathlib import Path

import captum.attr
import numpy as np
import torch
from torch import nn
from zennit import rules as zennit_rules
from zennit.attribution import Gradient
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import (
    EpsilonAlpha2Beta1,
    EpsilonAlpha2Beta1Flat,
    EpsilonGammaBox,
    EpsilonPlusFlat,
    LayerMapComposite,
)

from tests.references.propagation_weights import CLASSES, MEAN, SCALE, SHAPE, drawn

FILE = Path(__file__).parent / "propagation.npz"


def network(weights: dict[str, np.ndarray], pool: nn.Module) -> nn.Sequential:
    given = {k: torch.from_numpy(v) for k, v in weights.items()}
    first, norm, second = nn.Conv2d(3, 5, 3, 2, 1), nn.BatchNorm2d(5), nn.Conv2d(5, 6, (2, 3))
    dense = nn.Linear(6, CLASSES)
    made = nn.Sequential(
        first, norm, nn.ReLU(), pool, second, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), dense
    )
    made = made.double().eval()
    with torch.no_grad():
        first.weight.copy_(given["conv"].permute(3, 2, 0, 1))
        first.bias.copy_(given["bias"])
        norm.weight.copy_(given["norm_scale"])
        norm.bias.copy_(given["norm_shift"])
        norm.running_mean.copy_(given["norm_mean"])
        norm.running_var.copy_(given["norm_variance"])
        norm.eps = 1e-5
        second.weight.copy_(given["second"].permute(3, 2, 0, 1))
        second.bias.copy_(given["second_bias"])
        dense.weight.copy_(given["dense"].T)
        dense.bias.copy_(given["dense_bias"])
    return made


def normalized(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(((images - MEAN) / SCALE).transpose(0, 3, 1, 2).copy())


def main() -> None:
    weights = drawn()
    with torch.no_grad():
        logits = network(weights, nn.MaxPool2d(2, 1))(normalized(weights["images"])).numpy()
    targets = np.array([3, 0])
    found = {"logits": logits, "targets": targets}
    canonizers = [SequentialMergeBatchNorm()]
    zeros, ones = np.zeros(SHAPE), np.ones(SHAPE)
    composites = {
        "epsilon": LayerMapComposite(
            [
                ((nn.ReLU,), zennit_rules.Pass()),
                ((nn.AdaptiveAvgPool2d,), zennit_rules.Norm()),
                ((nn.Conv2d, nn.Linear), zennit_rules.Epsilon(0.01)),
            ],
            canonizers=canonizers,
        ),
        "epsilon_plus_flat": EpsilonPlusFlat(epsilon=1e-6, canonizers=canonizers),
        "epsilon_gamma_box": EpsilonGammaBox(
            low=normalized(zeros), high=normalized(ones), gamma=0.25, canonizers=canonizers
        ),
        "epsilon_alpha2_beta1": EpsilonAlpha2Beta1(canonizers=canonizers),
        "epsilon_alpha2_beta1_flat": EpsilonAlpha2Beta1Flat(canonizers=canonizers),
        "gamma": LayerMapComposite(
            [
                ((nn.ReLU,), zennit_rules.Pass()),
                ((nn.AdaptiveAvgPool2d,), zennit_rules.Norm()),
                ((nn.Conv2d, nn.Linear), zennit_rules.Gamma(0.5)),
            ],
            canonizers=canonizers,
        ),
    }
    for name, composite in composites.items():
        chosen = torch.eye(CLASSES, dtype=torch.float64)[targets]
        with Gradient(network(weights, nn.MaxPool2d(2, 1)), composite) as attributor:
            maps = attributor(normalized(weights["images"]), lambda y, chosen=chosen: y * chosen)[1]
        found[f"zennit/{name}"] = maps.detach().numpy().transpose(0, 2, 3, 1)
    pixels, reference = normalized(weights["images"]), normalized(weights["baseline"])
    lift = captum.attr.DeepLift(network(weights, nn.AvgPool2d(2, 1)))
    maps = lift.attribute(pixels, reference, target=torch.from_numpy(targets))
    found["captum/deep_lift"] = maps.detach().numpy().transpose(0, 2, 3, 1)
    np.savez_compressed(FILE, **found)


if __name__ == "__main__":
    main()
