"""What is public is documented: by reflection over the public lists of the library and of its rooms."""

import inspect
import pydoc
import re
from pathlib import Path

import pytest

import vexplain
from vexplain import (
    attribution,
    classifiers,
    concepts,
    datasets,
    evaluation,
    figures,
    relevance,
    streaming,
    transforms,
    translation,
)
from vexplain.datasets import cue_objects, shape_swap, try_on
from vexplain.translation import layered

ELSEWHERE = {"apply", "variables", "images", "targets", "score", "key"}  # documented once for the library
README = Path(__file__).parent.parent / "README.md"
ROOMS = (
    vexplain,
    attribution,
    classifiers,
    concepts,
    datasets,
    evaluation,
    figures,
    relevance,
    streaming,
    transforms,
    translation,
    cue_objects,
    shape_swap,
    try_on,
    layered,
)


def public(room):
    for name in dir(room):
        value = getattr(room, name)
        home = getattr(value, "__module__", "")
        is_its_own = room.__file__.endswith("__init__.py") or home == room.__name__
        if name[0] != "_" and home.startswith("vexplain") and is_its_own:
            yield name, value


FUNCTIONS = sorted(
    {(f"{f.__module__}.{name}", f) for room in ROOMS for name, f in public(room) if inspect.isfunction(f)},
    key=lambda pair: pair[0],
)


@pytest.mark.parametrize("function", [f for _, f in FUNCTIONS], ids=[name for name, _ in FUNCTIONS])
def test_a_public_function_is_documented(function):
    text = inspect.getdoc(function) or ""
    first = text.split("\n", 1)[0]
    assert first.endswith((".", ":")) or "." in text.split("\n\n")[0], "a sentence opens the docstring"
    parameters = [p for p in inspect.signature(function).parameters if p not in ("self", "args")]
    parameters = [p for p in parameters if p not in ELSEWHERE]
    if len(parameters) > 1:
        of_the_file = (inspect.getmodule(function).__doc__ or "").partition("In all functions:")[2]
        arguments = text.partition("Args:")[2] + of_the_file
        expected = [p for p in parameters if p not in ELSEWHERE]
        missing = [p for p in expected if not re.search(rf"^\s*\**{p}\b.*:", arguments, re.M)]
        assert not missing, f"not in Args: {missing}"


@pytest.mark.parametrize("name", [n for n, v in public(vexplain) if inspect.isfunction(v)])
def test_what_the_library_exports_has_an_example(name):
    assert ">>>" in inspect.getdoc(getattr(vexplain, name)), f"{name} has no example"


@pytest.mark.parametrize("function", [f for _, f in FUNCTIONS], ids=[name for name, _ in FUNCTIONS])
def test_options_are_keyword_only(function):
    parameters = list(inspect.signature(function).parameters.values())
    for parameter in parameters[len(parameters) == 1 :]:
        if parameter.name in ("targets", "methods", "function"):
            continue  # the one signature of all methods; all of the catalog where left out
        has_default = parameter.default is not inspect.Parameter.empty
        assert not has_default or parameter.kind is parameter.KEYWORD_ONLY, f"{parameter.name} is positional"


def test_the_library_lists_what_it_exports():
    """`help(vexplain)` shows what `__all__` names, and nothing else."""
    assert all(getattr(vexplain, name) is not None for name in vexplain.__all__)
    assert len([name for name in vexplain.__all__ if not inspect.ismodule(getattr(vexplain, name))]) <= 40
    assert {"explain", "fold", "fold_epoch", "GUIDED"} <= set(vexplain.__all__)
    assert "explain(" in pydoc.render_doc(vexplain, renderer=pydoc.plaintext)


def test_the_example_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    assert blocks
    namespace = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), namespace)
    assert (tmp_path / "explanation.png").stat().st_size > 5_000
