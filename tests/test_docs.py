"""The documentation: its code runs, each method has a page, and docstrings come out as they are meant."""

import ast
import doctest
import functools
import importlib
import importlib.util
import re
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)


@pytest.fixture(scope="module", autouse=True)
def extensions():
    """The folder of the site's own extensions is on the path, as the build has it."""
    sys.path.insert(0, str(DOCS / "_ext"))
    yield
    sys.path.remove(str(DOCS / "_ext"))


def sections(page):
    """The parts of a page by heading; what is before the first one is under ""."""
    parts = re.split(r"^## (.+)$", (DOCS / page).read_text("utf-8"), flags=re.M)
    return {"": parts[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))


def run(text, namespace, page):
    """Executes the python blocks of a text; skips where one imports a package that is not installed."""
    for code in _BLOCK.findall(text):
        for node in ast.walk(ast.parse(code)):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for package in (name.split(".")[0] for name in names):
                if importlib.util.find_spec(package) is None:
                    pytest.skip(f"{page}: {package} is not installed; pip install '.[test]' brings it")
        exec(compile(code, page, "exec"), namespace)


OWN_NETWORKS = "your_own_network.md"
LIBRARIES = [name for name in sections(OWN_NETWORKS) if name not in ("", "And then")]


def test_there_is_a_section_for_each_library():
    assert [name.split()[0] for name in LIBRARIES] == ["Flax", "Flax", "Equinox", "Haiku", "Keras", "A"]


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_network_of_each_library_is_explained(library, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    parts, namespace = sections(OWN_NETWORKS), {}
    for part in ("", library, "And then"):
        run(parts[part], namespace, OWN_NETWORKS)
    assert namespace["outputs"].shape == (2, 5)
    assert abs(namespace["maps"]).max() > 0
    assert {"conv", "relu", "dense"} <= {layer.kind for layer in namespace["table"]}


def test_the_pages_of_the_guide_run_one_after_another():
    namespace = {}
    for page in ("get_started.md", "methods/index.md", "paper.md", "evaluation.md", "concepts.md"):
        run((DOCS / page).read_text("utf-8"), namespace, page)
    assert namespace["explanation"].heatmaps.shape == (3, 32, 32)
    assert len(namespace["views"]) > 0


def test_each_method_has_a_page_with_its_title():
    import catalog

    import vexplain as vx

    pages = {path.stem: path for path in (DOCS / "methods").glob("*.md") if path.stem != "index"}
    catalog.check_pages(vx.METHODS, pages)
    for name, path in pages.items():
        catalog.check_title(vx.METHODS[name], path.read_text("utf-8"))


def test_a_method_without_a_page_is_refused():
    import catalog

    with pytest.raises(ValueError, match="methods without a page in docs/methods: lime"):
        catalog.check_pages(["grad_cam", "lime"], ["grad_cam"])
    with pytest.raises(ValueError, match="pages without a method: lime"):
        catalog.check_pages(["grad_cam"], ["grad_cam", "lime"])


@pytest.mark.parametrize("name", ["catalog", "docstrings"])
def test_examples_of_the_extensions_run(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0


def test_formulas_of_docstrings_stay_as_they_are_written():
    from docstrings import converted

    text = "Returns |x| of `Layer`s.\n\n    y = |x_i| * w_\n\nArgs:\n    x: as `.shape`."
    assert converted(text.split("\n")) == [
        "Returns \\|x\\| of `Layer`\\ s.",
        "",
        "::",
        "",
        "    y = |x_i| * w_",
        "",
        "Args:",
        "    x: as ``.shape``.",
    ]


def test_links_between_pages_lead_somewhere():
    pages = [DOCS.parent / "README.md", *DOCS.rglob("*.md")]
    for page in (p for p in pages if "_build" not in p.parts):
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)\s]*)?\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


def test_the_calls_beside_those_of_other_libraries_have_the_options_that_they_name():
    import vexplain as vx

    page = (DOCS / "coming_from.md").read_text("utf-8")
    calls = re.findall(r'`("[a-z_]+"[^`]*)`', page)
    assert len(calls) > 30
    for call in calls:
        found = ast.parse(f"attribute({call})", mode="eval").body
        assert isinstance(found, ast.Call)
        method = vx.METHODS[ast.literal_eval(found.args[0])]
        assert {k.arg for k in found.keywords} <= {*method.options, "score", "key"}, call
    for name in re.findall(r"`(?:vx\.)(evaluation\.[a-z_]+|[a-z_]+)", page):
        assert functools.reduce(getattr, name.split("."), vx) is not None


def test_the_table_of_oracles_has_every_method_and_tests_that_exist():
    import vexplain as vx

    page = (DOCS / "results/conformance.md").read_text("utf-8")
    rows = re.findall(r"^\| (`[^|]+) \|", page, flags=re.M)
    assert sorted(n for row in rows for n in re.findall(r"`(\w+)`", row)) == sorted(vx.METHODS)
    tests = "\n".join(path.read_text("utf-8") for path in (DOCS.parent / "tests").rglob("test_*.py"))
    known = set(re.findall(r"^def (test_\w+)", tests, flags=re.M))
    named = set(re.findall(r"`(test_\w+)`", page))
    assert named <= known, named - known
