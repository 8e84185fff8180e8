"""All methods by name, with what they need and cost; and any of them in one call.

Every method has one signature,

    method(apply, variables, images, targets=None, *, score=logit, key=None, <its own options>)

and means the same by it, so that its own documentation says only what is its own:

    apply       the network itself, `apply(variables, images) -> outputs`: any function that JAX can trace
    variables   its weights, any pytree of arrays
    images      (batch, height, width, channels), floats in [0, 1]
    targets     what is explained: one class for all images, a list or an array of one class an image, or what
                the score takes, with a leading batch axis; the predicted classes if left out
    score       `score(outputs, targets) -> (batch,)`: `logit`, `probability`, `margin`, `against(other)`,
                `binary` for one logit, or a function of one's own
    key         of methods that draw at random: one key, or one an image

It returns signed attributions (batch, height, width, channels), or heatmaps (batch, height, width). Called as
written it is compiled once for a network, its options and the size of the images, and its arguments are
checked: an error names the argument, what was given and what was expected. Inside `jit`, `vmap` or `grad` of
the caller it is part of their program, and values are not checked.
"""

import dataclasses
import difflib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vexplain import attribution, relevance
from vexplain._text import aligned
from vexplain.attribution import Score, logit
from vexplain.transforms import Rule, Rules
from vexplain.typing import ApplyFn, Array, ImagesLike, Targets, Variables

MethodFn = Callable[..., Any]  # of the signature above
Methods = Mapping[str, str | MethodFn] | Sequence[str | MethodFn] | str | MethodFn

_SHARED = ("apply", "variables", "images", "targets", "score", "key")


@dataclasses.dataclass(frozen=True)
class Method:
    """One method of the catalog.

    Attributes:
        function: what is called.
        title: its name in tables and figures.
        kind: "gradient", "propagation", "class activation map", "attention", "perturbation", "relevant
            features", or "control": a map that does not look at the network.
        passes: how many passes through the network it costs; "f" forward, "b" backward.
        sign: "signed" attributions, or "positive" heatmaps.
        needs: of "layer", "relevance", "key", "baseline", "ReLUs", "attention" and "many passes" (hundreds),
            what it needs or has a customary choice for.
        reference: authors and year of the paper.
    """

    function: MethodFn
    title: str
    kind: str
    passes: str
    sign: str
    reference: str
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.function.__name__

    @property
    def options(self) -> tuple[str, ...]:
        """The names of its own options, the relevance included."""
        return own_options(self.function)

    @property
    def rules(self) -> Rule | Rules | None:
        """The backward rules that it has where no others are given; `None` where it takes none."""
        found = inspect.signature(self.function).parameters.get("rules")
        return None if found is None else found.default


class Catalog(Mapping[str, Method]):
    """Methods by name. `print` it for the table."""

    def __init__(self, methods: Sequence[Method]):
        self._methods = {method.name: method for method in methods}

    def __getitem__(self, name: str) -> Method:
        if name not in self._methods:
            near = difflib.get_close_matches(str(name), self._methods, n=3, cutoff=0.5)
            meant = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise KeyError(f"no method {name!r} in the catalog: expected one of {list(self)}{meant}")
        return self._methods[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._methods)

    def __len__(self) -> int:
        return len(self._methods)

    def of_kind(self, *kinds: str) -> tuple[str, ...]:
        """The names of the methods of some kinds.

        Raises:
            ValueError: there is no such kind.
        """
        known = dict.fromkeys(method.kind for method in self.values())
        for kind in kinds:
            if kind not in known:
                raise ValueError(f"kind is {kind!r}: expected one of {list(known)}")
        return tuple(name for name, method in self.items() if method.kind in kinds)

    def without(self, *needs: str) -> tuple[str, ...]:
        """The names of the methods that need none of some things.

        Example:
            >>> "attention_rollout" in METHODS.without("attention")
            False
        """
        return tuple(name for name, method in self.items() if not set(needs) & set(method.needs))

    @property
    def customary(self) -> tuple[str, ...]:
        """The names of the methods that are meant where none is named: of any network, in a few passes."""
        return self.without("attention", "many passes")

    def __repr__(self) -> str:
        rows = [
            (name, m.title, m.kind, m.passes, m.sign, ", ".join(m.needs), m.reference)
            for name, m in self.items()
        ]
        table = aligned(("name", "title", "kind", "passes", "sign", "needs", "reference"), rows)
        return (
            f"{table}\n(passes: f forward, b backward; K features, three as a rule; C channels of the layer)"
        )


_GRADIENT, _CAM, _ATTENTION, _RELEVANT = "gradient", "class activation map", "attention", "relevant features"
_PROPAGATION, _PERTURBATION = "propagation", "perturbation"

# fmt: off
METHODS = Catalog([  # one row a method; the papers in full are in the documentation of the functions
    Method(relevance.relevant_features, "relevant features (paper)", _RELEVANT, "f + K b", "positive",
           "Oramas et al., ICLR 2019", ("relevance", "ReLUs")),
    Method(relevance.resampled_relevant_features, "relevant features, resampled (ours)", _RELEVANT, "f + K b",
           "positive", "Oramas et al., ICLR 2019; this library", ("relevance", "ReLUs")),
    Method(relevance.relevant_evidence, "relevant evidence (ours)", _RELEVANT, "f + 2 b", "positive",
           "this library", ("relevance",)),
    Method(attribution.gradient, "gradient", _GRADIENT, "f + b", "signed",
           "Simonyan et al., 2013"),
    Method(attribution.input_x_gradient, "input × gradient", _GRADIENT, "f + b", "signed",
           "Shrikumar et al., 2016"),
    Method(attribution.smooth_grad, "SmoothGrad", _GRADIENT, "num_samples (f + b)", "signed",
           "Smilkov et al., 2017", ("key",)),
    Method(attribution.square_grad, "SquareGrad", _GRADIENT, "num_samples (f + b)", "signed",
           "Hooker et al., NeurIPS 2019", ("key",)),
    Method(attribution.var_grad, "VarGrad", _GRADIENT, "num_samples (f + b)", "signed",
           "Adebayo et al., 2018", ("key",)),
    Method(attribution.integrated_gradients, "integrated gradients", _GRADIENT, "num_steps (f + b)", "signed",
           "Sundararajan et al., ICML 2017", ("baseline",)),
    Method(attribution.expected_gradients, "expected gradients", _GRADIENT, "num_samples (f + b)", "signed",
           "Erion et al., 2021", ("key",)),
    Method(attribution.guided_integrated_gradients, "guided integrated gradients", _GRADIENT,
           "num_steps (f + b)", "signed", "Kapishnikov et al., CVPR 2021", ("baseline",)),
    Method(attribution.blur_integrated_gradients, "blur integrated gradients", _GRADIENT,
           "num_steps (f + b)", "signed", "Xu et al., CVPR 2020"),
    Method(attribution.xrai, "XRAI", _GRADIENT, "2 num_steps (f + b)", "signed",
           "Kapishnikov et al., ICCV 2019"),
    Method(attribution.full_grad, "FullGrad", _GRADIENT, "f + b", "positive",
           "Srinivas and Fleuret, NeurIPS 2019"),
    Method(attribution.deconvnet, "deconvnet", _GRADIENT, "f + b", "signed",
           "Zeiler and Fergus, ECCV 2014", ("ReLUs",)),
    Method(attribution.guided_backprop, "guided backprop", _GRADIENT, "f + b", "signed",
           "Springenberg et al., 2015", ("ReLUs",)),
    Method(attribution.lrp, "LRP", _PROPAGATION, "f + b to f + 4 b", "signed",
           "Bach et al., PLOS ONE 2015"),
    Method(attribution.attn_lrp, "AttnLRP", _PROPAGATION, "f + b", "signed",
           "Achtibat et al., ICML 2024"),
    Method(attribution.deeplift, "DeepLIFT", _PROPAGATION, "2 (f + b)", "signed",
           "Shrikumar et al., ICML 2017", ("baseline",)),
    Method(attribution.grad_cam, "Grad-CAM", _CAM, "f + b", "positive",
           "Selvaraju et al., ICCV 2017", ("layer",)),
    Method(attribution.grad_cam_plus_plus, "Grad-CAM++", _CAM, "f + b", "positive",
           "Chattopadhay et al., WACV 2018", ("layer",)),
    Method(attribution.layer_cam, "LayerCAM", _CAM, "f + b", "positive",
           "Jiang et al., TIP 2021", ("layer",)),
    Method(attribution.hires_cam, "HiResCAM", _CAM, "f + b", "positive",
           "Draelos and Carin, 2020", ("layer",)),
    Method(attribution.xgrad_cam, "XGrad-CAM", _CAM, "f + b", "positive",
           "Fu et al., BMVC 2020", ("layer",)),
    Method(attribution.score_cam, "Score-CAM", _CAM, "(C + 2) f", "positive",
           "Wang et al., CVPR Workshops 2020", ("layer", "many passes")),
    Method(attribution.ablation_cam, "Ablation-CAM", _CAM, "(C + 1) f", "positive",
           "Desai and Ramaswamy, WACV 2020", ("layer", "many passes")),
    Method(attribution.eigen_cam, "Eigen-CAM", _CAM, "f", "positive",
           "Muhammad and Yeasin, IJCNN 2020", ("layer",)),
    Method(attribution.upsampled_activation, "upsampled activation", _CAM, "f", "positive",
           "Oramas et al., ICLR 2019", ("layer",)),
    Method(attribution.guided_grad_cam, "guided Grad-CAM", _CAM, "2 (f + b)", "signed",
           "Selvaraju et al., ICCV 2017", ("layer", "ReLUs")),
    Method(attribution.guided_grad_cam_plus_plus, "guided Grad-CAM++", _CAM, "2 (f + b)", "signed",
           "Chattopadhay et al., WACV 2018", ("layer", "ReLUs")),
    Method(attribution.attention_rollout, "attention rollout", _ATTENTION, "f + b", "positive",
           "Abnar and Zuidema, ACL 2020", ("attention",)),
    Method(attribution.generic_attention, "generic attention", _ATTENTION, "f + b", "positive",
           "Chefer et al., ICCV 2021", ("attention",)),
    Method(attribution.occlusion, "occlusion", _PERTURBATION, "(windows + 1) f", "signed",
           "Zeiler and Fergus, ECCV 2014", ("baseline",)),
    Method(attribution.feature_ablation, "feature ablation", _PERTURBATION, "(features + 1) f", "signed",
           "Zeiler and Fergus, ECCV 2014", ("baseline",)),
    Method(attribution.rise, "RISE", _PERTURBATION, "num_masks f", "signed",
           "Petsiuk et al., BMVC 2018", ("key", "baseline", "many passes")),
    Method(attribution.lime, "LIME", _PERTURBATION, "(num_masks + 1) f", "signed",
           "Ribeiro et al., KDD 2016", ("key", "baseline", "many passes")),
    Method(attribution.kernel_shap, "KernelSHAP", _PERTURBATION, "(num_masks + 2) f", "signed",
           "Lundberg and Lee, NeurIPS 2017", ("key", "baseline", "many passes")),
    Method(attribution.shapley_sampling, "Shapley sampling", _PERTURBATION,
           "(num_permutations × features + 1) f", "signed", "Castro et al., 2009",
           ("key", "baseline", "many passes")),
    Method(attribution.exact_shapley, "exact Shapley values", _PERTURBATION, "(2^features + 1) f", "signed",
           "Shapley, 1953", ("baseline", "many passes")),
    Method(attribution.random_map, "random map", "control", "none", "positive",
           "uniform noise", ("key",)),
    Method(attribution.sobel_edges, "Sobel edges", "control", "none", "positive",
           "edges of the image"),
    Method(attribution.center_gaussian, "Gaussian at the center", "control", "none", "positive",
           "objects are often there"),
    Method(attribution.object_segmentation, "object segmentation", "control", "none", "positive",
           "the whole object"),
])
# fmt: on


def attribute(
    method: str | MethodFn,
    apply: ApplyFn,
    variables: Variables,
    images: ImagesLike,
    targets: Targets = None,
    *,
    score: Score = logit,
    key: Any = None,
    **options: Any,
) -> Array:
    """Returns the attributions of a method of the catalog, or of a function of the same signature.

    Args:
        method: a name of `METHODS`, or a function.
        **options: of the method.

    Raises:
        KeyError: there is no method of this name.
        TypeError: the method does not have one of the options.

    Example:
        >>> import jax.numpy as jnp
        >>> apply = lambda variables, images: images.mean((1, 2)) @ variables
        >>> print(attribute("gradient", apply, jnp.eye(2), jnp.ones((1, 1, 2, 2)), targets=1)[0, 0])
        [[0.  0.5]
         [0.  0.5]]
    """
    function = METHODS[method].function if isinstance(method, str) else method
    if isinstance(method, str) and (unknown := set(options) - set(own_options(function))):
        raise TypeError(
            f"{method} has no option {sorted(unknown)[0]!r}: expected some of {list(own_options(function))}"
        )
    return function(apply, variables, images, targets, score=score, key=key, **options)


def as_methods(methods: Methods | None = None, **options: Any) -> dict[str, MethodFn]:
    """Returns functions by name, with options filled in where a method has them.

    Args:
        methods: names of the catalog, functions of the same signature, or both, one or several; or these by
            name. The customary ones of the catalog if left out.
        **options: for all methods that have an option of the name; `num_samples=25` is for SmoothGrad.

    Raises:
        KeyError: there is no method of a name.
        TypeError: no method has one of the options, or something is no function.
        ValueError: two methods have one name, or there is none.

    Example:
        >>> list(as_methods(["gradient", "smooth_grad"], num_samples=9))
        ['gradient', 'smooth_grad']
    """
    if methods is None:
        methods = METHODS.customary
    if isinstance(methods, str) or callable(methods):
        methods = [methods]
    named = methods.items() if isinstance(methods, Mapping) else [(_name_of(m), m) for m in methods]
    found: dict[str, MethodFn] = {}
    for name, method in named:
        if name in found:
            raise ValueError(f"methods: two are called {name!r}; pass a dict that names them")
        function = METHODS[method].function if isinstance(method, str) else method
        if not callable(function):
            raise TypeError(
                f"methods[{name!r}] is a {type(function).__name__}: expected a name or a function"
            )
        found[name] = function
    if not found:
        raise ValueError(f"methods is empty: expected some of {list(METHODS)}")
    _check_options(found, options)
    return with_options(found, **options)


def with_options(methods: Mapping[str, MethodFn], **options: Any) -> dict[str, MethodFn]:
    """Returns the methods with options filled in where they have them and were not given others.

    Args:
        methods: by name.
        **options: by name; one that no method has is passed over.
    """

    def filled(function: MethodFn) -> MethodFn:
        given = function.keywords if isinstance(function, functools.partial) else {}
        own = own_options(function)
        taken = {name: value for name, value in options.items() if name in own and name not in given}
        return functools.partial(function, **taken) if taken else function

    return {name: filled(function) for name, function in methods.items()}


def title_of(name: str) -> str:
    """Returns the title of a method of the catalog; any other name as it is.

    Args:
        name: of a method, perhaps with more behind it: `"grad_cam @ relu_1"`.

    Example:
        >>> title_of("grad_cam @ relu_1"), title_of("mine")
        ('Grad-CAM @ relu_1', 'mine')
    """
    first = name.split(" ", 1)[0].removesuffix(",")
    return name.replace(first, METHODS[first].title, 1) if first in METHODS else name


def own_options(function: MethodFn) -> tuple[str, ...]:
    """Returns the names of the options that a function has beside those that all methods have.

    Args:
        function: of the signature of all methods.
    """
    parameters = inspect.signature(function).parameters.values()
    return tuple(p.name for p in parameters if p.name not in _SHARED and p.kind is p.KEYWORD_ONLY)


def _name_of(method: Any) -> str:
    if isinstance(method, functools.partial):
        return _name_of(method.func)
    return method if isinstance(method, str) else getattr(method, "__name__", type(method).__name__)


def _check_options(methods: Mapping[str, MethodFn], options: Mapping[str, Any]) -> None:
    known = {name for function in methods.values() for name in own_options(function)}
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"options: no method has {name!r}: expected some of {sorted(known)}{meant}")
