"""What a command line names and does not exist: networks, files and folders.

Nothing that takes long to import is imported here, so that a mistake is answered at once.
"""

import importlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vexplain.classifiers.names import NAMES
from vexplain.command.arguments import Arguments, Features, Layers, Methods, Translate
from vexplain.command.names import AGAINST

_PATHS = (
    ("weights", Path.exists, "file"),
    ("images", Path.is_dir, "folder"),
    ("a", Path.is_dir, "folder"),
    ("b", Path.is_dir, "folder"),
    ("masks", Path.is_dir, "folder"),
    ("classes", Path.is_file, "file"),
)


def check_inputs(arguments: Arguments) -> None:
    """Raises where the network, a file or a folder of a command line does not exist.

    Raises:
        ValueError: an unknown network, one without weights, or a module without the function.
        FileNotFoundError: there is no such file or folder.
        ModuleNotFoundError: the module of the network cannot be imported.
    """
    if isinstance(arguments, Methods):
        return
    for name, exists, kind in _PATHS:
        path = getattr(arguments, name, None)
        if path is not None and not exists(path):
            raise FileNotFoundError(f"--{name} is {str(path)!r}: there is no such {kind}")
    for name, other in (("masks", "images"), ("a", "b"), ("b", "a")):
        inner, outer = getattr(arguments, name, None), getattr(arguments, other, None)
        if inner is not None and outer is not None and inner.resolve().is_relative_to(outer.resolve()):
            raise ValueError(
                f"--{name} is {str(inner)!r}, inside of --{other} {str(outer)!r}: its images would count "
                "there too; choose two folders beside each other"
            )
    if isinstance(arguments, Translate):
        for option in ("images", "a", "b"):
            _check_folders(option, getattr(arguments, option), arguments.out)
        return
    if isinstance(arguments, Features):
        _check_folders("images", arguments.images, arguments.out)
    if ":" in (score := getattr(arguments, "score", "")) and not score.startswith(AGAINST):
        function_of("--score", score)
    model = arguments.model
    if ":" in model:
        function_of("--model", model)
    elif model not in NAMES:
        raise ValueError(
            f"--model is {model!r}: expected one of {', '.join(NAMES)}, or package.module:function"
        )
    elif arguments.weights is None and not isinstance(arguments, Layers):
        raise ValueError(
            f"--weights is missing: {model} has random weights without it, and nothing to explain; pass a "
            ".safetensors file of torchvision or timm, or a .mat file of MatConvNet"
        )


def _check_folders(option: str, images: Path, out: Path) -> None:
    if out.resolve().is_relative_to(images.resolve()):
        raise ValueError(
            f"--out is {str(out)!r}, inside of --{option} {str(images)!r}: results would be images of the "
            "next run; choose a folder outside"
        )
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out is {str(out)!r}: it is a file, expected a folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out) as file:
            file.write(b"a place for results")
    except OSError as error:
        raise ValueError(f"--out is {str(out)!r}: nothing can be written there ({error.strerror})") from error


def function_of(option: str, name: str) -> Callable[..., Any]:
    """Returns the function of the user's own that an option names.

    Keras, which chooses its backend when it is imported, takes JAX unless KERAS_BACKEND says otherwise.

    Args:
        option: as the user knows it, such as `--model`.
        name: `package.module:function`; the module is also looked for in the current folder.

    Raises:
        ValueError: the module has no such function.
        ModuleNotFoundError: the module cannot be imported.
    """
    module, _, attribute = name.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
    os.environ.setdefault("KERAS_BACKEND", "jax")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # something that the module itself wants
        raise ModuleNotFoundError(
            f"{option} {name}: there is no module {module!r}, neither installed nor in {Path.cwd()}; write "
            "package.module:function, without .py"
        ) from error
    function = getattr(found, attribute, None)
    if not callable(function):
        public = [key for key, value in vars(found).items() if callable(value) and key[0] != "_"]
        raise ValueError(
            f"{option} {name}: module {module!r} has no function {attribute!r}; it has: "
            f"{', '.join(public[:12]) or 'none'}"
        )
    return function
