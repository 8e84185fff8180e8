"""Weights of other frameworks: logits of torchvision and timm, MatConvNet in NumPy, files that misfit."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from numpy.lib.stride_tricks import sliding_window_view
from safetensors.numpy import save_file
from scipy.io import savemat

from tests.references.weights import seeded_images, seeded_weights
from vexplain.classifiers import (
    NAMES,
    VGG,
    ResNet,
    _pretrained,
    build,
    place_weights,
    pretrained,
    read_weights,
)

REFERENCES = Path(__file__).parent.parent / "references" / "logits.npz"
OPTIONS = {  # an eighth of the published widths
    "alexnet": {"widths": (8, 24, 48, 32, 32), "hidden": 512},
    "vgg16": {"widths": (8, 16, 32, 64, 64), "hidden": 512},
    "vgg19": {"widths": (8, 16, 32, 64, 64), "hidden": 512},
    "resnet18": {"width": 8},
    "resnet50": {"width": 8},
    "convnext_tiny": {"widths": (12, 24, 48, 96)},
    "vit_b_16": {"image_size": 64, "depth": 3, "width": 48, "num_heads": 4},
}
DIALECTS = {"alexnet": ("torchvision",)}
CASES = [(name, d) for name in OPTIONS for d in DIALECTS.get(name, ("torchvision", "timm"))]
SAME_NAMES = ("resnet18", "resnet50")  # files of both frameworks look alike: torchvision's resizing is taken
TINY = {"width": 2}


@pytest.fixture(scope="module")
def references():
    with np.load(REFERENCES) as file:
        return dict(file)


def test_the_names_are_those_of_the_networks():
    assert tuple(_pretrained._NETWORKS) == NAMES


def weights_of(case, references):
    return seeded_weights(json.loads(str(references[f"{case}/shapes"])))


@pytest.mark.parametrize(("name", "dialect"), CASES)
def test_logits_are_those_of_the_framework(name, dialect, references, tmp_path):
    """To 1e-4 of the largest, with the mean and scale that the framework says belong to its weights."""
    case = f"{name}/{dialect}"
    save_file(weights_of(case, references), tmp_path / "weights.safetensors")
    apply, variables, resizing = pretrained(name, tmp_path / "weights.safetensors", **OPTIONS[name])
    found = jax.jit(apply)(variables, jnp.asarray(seeded_images(2, 64)))
    expected = references[f"{case}/logits"]
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    settings = json.loads(str(references[f"{case}/settings"]))
    if (name, dialect) not in [(n, "timm") for n in SAME_NAMES]:
        expected = tuple(settings[key] for key in ("crop", "resize", "interpolation"))
        assert (resizing.size, resizing.shorter_side, resizing.interpolation) == expected


def tiny_weights(references):
    """Of a ResNet-18 two channels wide: shapes of the reference, a quarter of them."""
    shapes = json.loads(str(references["resnet18/torchvision/shapes"]))
    narrow = {k: [n if n in (1, 3, 7) else n // 4 for n in shape] for k, shape in shapes.items()}
    return seeded_weights(narrow | {"fc.weight": [7, 16], "fc.bias": [7]} | _kernels(shapes))


def _kernels(shapes):
    """Channels are a quarter; windows, also of 7 × 7 and 1 × 1, stay."""
    kernels = {k: s for k, s in shapes.items() if len(s) == 4}
    return {k: [s[0] // 4, s[1] if s[1] == 3 else s[1] // 4, *s[2:]] for k, s in kernels.items()}


def test_everything_that_does_not_fit_is_listed_at_once(references, tmp_path):
    weights = tiny_weights(references)
    pretrained("resnet18", _saved(weights, tmp_path), **TINY)  # as it is, it fits
    del weights["bn1.running_var"], weights["layer2.0.downsample.0.weight"]
    weights["layer9.weight"] = np.zeros(3, np.float32)
    weights["layer1.0.conv1.weight"] = np.zeros((5, 2, 3, 3), np.float32)
    weights["fc.weight"] = np.zeros((7, 17), np.float32)
    with pytest.raises(ValueError, match="does not fit") as caught:
        pretrained("resnet18", _saved(weights, tmp_path), **TINY)
    message = str(caught.value)
    assert "lacks bn1.running_var, layer2.0.downsample.0.weight" in message
    assert "has layer9.weight, which this network has not" in message
    assert "layer1.0.conv1.weight (5, 2, 3, 3)" in message
    assert "fc.weight (7, 17)" in message


def test_a_file_of_another_network_says_what_was_expected(references, tmp_path):
    file = _saved(tiny_weights(references), tmp_path)
    with pytest.raises(ValueError, match=r"no name in the file is one of this network's.*features\.0"):
        pretrained("vgg16", file)
    with pytest.raises(ValueError, match=r"name is 'resnet51': expected one of alexnet, .*resnet50"):
        pretrained("resnet51", file)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_a_pickle_is_refused_with_the_two_lines_that_convert_it(suffix, tmp_path):
    file = tmp_path / f"resnet{suffix}"
    file.write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")  # a pickle that runs a program
    with pytest.raises(ValueError, match="is a pickle") as caught:
        pretrained("resnet50", file)
    conversion = str(caught.value).split("\n", 1)[1]
    assert len(conversion.splitlines()) == 2
    for line in conversion.splitlines():
        compile(line.strip(), "conversion", "exec")
    assert f'torch.load("resnet{suffix}", weights_only=True)' in conversion
    assert '"resnet.safetensors"' in conversion


def test_files_that_cannot_be_read(references, tmp_path):
    whole = _saved(tiny_weights(references), tmp_path)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"cut\.safetensors is no whole safetensors file.*fetch it again"):
        pretrained("resnet18", cut)
    broken = tmp_path / "broken.mat"
    broken.write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    with pytest.raises(ValueError, match=r"broken\.mat"):
        pretrained("vgg_f", broken)
    savemat(tmp_path / "other.mat", {"x": np.ones(3)})
    with pytest.raises(ValueError, match="has no `layers`"):
        read_weights(tmp_path / "other.mat")
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        pretrained("resnet18", tmp_path / "nothing.safetensors")
    (tmp_path / "weights.h5").write_bytes(b"")
    with pytest.raises(ValueError, match=r"expected \.safetensors or \.mat"):
        read_weights(tmp_path / "weights.h5")


def _saved(weights, folder):
    save_file(weights, folder / "weights.safetensors")
    return folder / "weights.safetensors"


# ------------------------------------------------------------------------------------- MatConvNet

VGGF_OPTIONS = {"widths": (3, 4, 5, 4, 3), "hidden": 6}
VGGF_KERNELS = {
    "conv1": (11, 11, 3, 3), "conv2": (5, 5, 3, 4), "conv3": (3, 3, 4, 5), "conv4": (3, 3, 5, 4),
    "conv5": (3, 3, 4, 3), "fc6": (6, 6, 3, 6), "fc7": (1, 1, 6, 6), "fc8": (1, 1, 6, 7),
}  # fmt: skip
NORMALIZATION = (5, 2.0, 1e-4, 0.75)


def _vgg_f_weights():
    generator = np.random.default_rng(3)
    kernels = {n: generator.normal(size=s) / np.sqrt(np.prod(s[:3])) for n, s in VGGF_KERNELS.items()}
    biases = {n: generator.normal(size=(1, s[3])) for n, s in VGGF_KERNELS.items()}
    return kernels, biases, generator.uniform(90, 130, (224, 224, 3))


def _simple_nn(form):
    """A file's content in the form of MatConvNet's SimpleNN: cells of structures, in single precision."""
    kernels, biases, average = _vgg_f_weights()

    def conv(name, stride, pad):
        arrays = (np.float32(kernels[name]), np.float32(biases[name]))
        layer = {
            "type": "conv",
            "name": name,
            "stride": np.array([[stride] * 2]),
            "pad": np.array([[pad] * 4]),
        }
        if form == "old":
            return layer | {"filters": arrays[0], "biases": arrays[1]}
        return layer | {"weights": _cell(*arrays)}

    def plain(kind, name, **fields):
        return {"type": kind, "name": name, **fields}

    def norm(name):
        return plain("normalize" if form == "old" else "lrn", name, param=np.array([NORMALIZATION]))

    def pool(name):
        window = {"stride": np.array([[2, 2]]), "pad": np.array([[0, 1, 0, 1]])}
        return plain("pool", name, method="max", pool=np.array([[3, 3]]), **window)

    layers = _cell(
        conv("conv1", 4, 0), plain("relu", "relu1"), norm("norm1"), pool("pool1"),
        conv("conv2", 1, 2), plain("relu", "relu2"), norm("norm2"), pool("pool2"),
        conv("conv3", 1, 1), plain("relu", "relu3"), conv("conv4", 1, 1), plain("relu", "relu4"),
        conv("conv5", 1, 1), plain("relu", "relu5"), pool("pool5"),
        conv("fc6", 1, 0), plain("relu", "relu6"), conv("fc7", 1, 0), plain("relu", "relu7"),
        conv("fc8", 1, 0), plain("softmax", "prob"),
    )  # fmt: skip
    normalization = {"imageSize": np.array([[224.0, 224, 3]]), "averageImage": np.float32(average)}
    if form == "old":
        return {"layers": layers, "normalization": normalization}
    return {"layers": layers, "meta": {"normalization": normalization}}


def _cell(*values):
    cell = np.empty((1, len(values)), object)
    cell[0, :] = values
    return cell


def _vgg_f_logits(images):
    """The network in NumPy, float64, layer by layer as MatConvNet documents them."""
    kernels, biases, average = _vgg_f_weights()

    def conv(x, name, stride, pad):
        kernel = np.float32(kernels[name]).astype(np.float64)
        x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        windows = sliding_window_view(x, kernel.shape[:2], axis=(1, 2))[:, ::stride, ::stride]
        return np.einsum("nhwcij,ijco->nhwo", windows, kernel) + np.float32(biases[name])

    def norm(x):
        size, kappa, alpha, beta = NORMALIZATION
        squares = np.pad(x**2, ((0, 0), (0, 0), (0, 0), (size // 2, size // 2)))
        return x / (kappa + alpha * sliding_window_view(squares, size, axis=3).sum(-1)) ** beta

    def pool(x):
        x = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=-np.inf)
        return sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::2, ::2].max((-2, -1))

    x = 255 * images.astype(np.float64) - np.float32(average)
    x = pool(norm(np.maximum(conv(x, "conv1", 4, 0), 0)))
    x = pool(norm(np.maximum(conv(x, "conv2", 1, 2), 0)))
    for name in ("conv3", "conv4", "conv5"):
        x = np.maximum(conv(x, name, 1, 1), 0)
    x = pool(x)
    for name in ("fc6", "fc7"):
        x = np.maximum(conv(x, name, 1, 0), 0)
    return conv(x, "fc8", 1, 0)[:, 0, 0]


def test_vgg_f_of_matconvnet_in_both_forms_against_numpy(tmp_path):
    images = seeded_images(2, 224)
    expected = _vgg_f_logits(images)
    found = {}
    for form in ("old", "new"):
        savemat(tmp_path / f"{form}.mat", _simple_nn(form))
        apply, variables, resizing = pretrained("vgg_f", tmp_path / f"{form}.mat", **VGGF_OPTIONS)
        found[form] = variables
    for old, new in zip(*map(jax.tree.leaves, found.values()), strict=True):
        np.testing.assert_array_equal(old, new)
    logits = jax.jit(apply)(variables, jnp.asarray(images))
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()
    assert resizing.size == 224


def test_vgg_16_of_matconvnet_has_the_weights_of_torchvision_in_other_axes(references):
    """Kernels (rows, columns, in, out); the first dense layer is a convolution of 7 × 7."""
    torch = weights_of("vgg16/torchvision", references)
    module = nnx.eval_shape(lambda: VGG(num_classes=7, **OPTIONS["vgg16"], rngs=nnx.Rngs(0)))
    names = module.torchvision_names()
    theirs = {}
    for own, name in names.items():
        kernel = torch[f"{name}.weight"]
        if own == "fc6":
            kernel = kernel.reshape(512, 64, 7, 7)
        kernel = kernel.reshape(*kernel.shape, *(1,) * (4 - kernel.ndim))
        theirs |= {f"{own}.weight": kernel.transpose(2, 3, 1, 0), f"{own}.bias": torch[f"{name}.bias"]}
    expected = place_weights(module, torch, "torchvision")
    found = place_weights(module, theirs, "matconvnet")
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_same_network_is_built_with_random_weights():
    apply, variables, resizing = build("resnet18", num_classes=5, seed=1, **TINY)
    found = jax.eval_shape(apply, variables, jnp.zeros((2, 32, 32, 3)))
    assert found.shape == (2, 5)
    assert (resizing.size, resizing.shorter_side) == (224, 256)
    other = build("resnet18", num_classes=5, seed=2, **TINY).variables
    assert not np.array_equal(variables["conv1"]["kernel"], other["conv1"]["kernel"])


def test_a_file_that_crashes_its_reader_is_named(tmp_path):
    """One byte of the file, and SciPy's compiled reader dies of a segmentation fault."""
    savemat(tmp_path / "damaged.mat", _simple_nn("new"))
    content = bytearray((tmp_path / "damaged.mat").read_bytes())
    failed = 0
    for place in (300, 310, 460, 700):
        (tmp_path / "damaged.mat").write_bytes(
            bytes(content[:place]) + bytes(8) + bytes(content[place + 8 :])
        )
        try:
            arrays = read_weights(tmp_path / "damaged.mat")
        except ValueError as error:
            assert re.search(r"damaged\.mat cannot be read as a MATLAB file: \S", str(error))  # noqa: PT017
            failed += 1
        else:
            assert all(array.dtype.kind in "fiu" for array in arrays.values())
    assert failed


def test_what_is_compressed_has_a_limit(tmp_path):
    savemat(tmp_path / "net.mat", _simple_nn("new"), do_compression=True)
    with pytest.raises(ValueError, match=r"net\.mat cannot be read .*more than max_bytes = 1,000; raise it"):
        read_weights(tmp_path / "net.mat", max_bytes=1000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bn1.running_var": lambda a: -a - 1}, r"bn1\.running_var below 0, a variance"),
        ({"bn1.bias": lambda a: a.astype(np.int64)}, r"bn1\.bias of int64, expected floating point"),
        ({"fc.bias": lambda a: a.reshape(1, -1)}, None),
        ({"layer4.0.bn1.weight": lambda a: a.reshape(4, 4)}, r"bn1\.weight \(4, 4\), expected as \(16,\)"),
        ({"conv1.weight": lambda a: a * np.nan}, r"conv1\.weight with NaN or infinity"),
    ],
)
def test_values_that_no_network_has_are_refused(change, message, references, tmp_path):
    weights = dict(tiny_weights(references))
    weights |= {name: fn(weights[name]) for name, fn in change.items()}
    module = ResNet((2, 2, 2, 2), 7, uses_bottlenecks=False, width=2, rngs=nnx.Rngs(0))
    arrays = read_weights(_saved(weights, tmp_path))
    if message is None:
        place_weights(module, arrays, "torchvision")
        return
    with pytest.raises(ValueError, match=message):
        place_weights(module, arrays, "torchvision")


def test_numbers_of_another_kind_are_named(tmp_path):
    header = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(2)
    (tmp_path / "small.safetensors").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"small\.safetensors is no whole safetensors file of numbers that NumPy"
    ):
        read_weights(tmp_path / "small.safetensors")
