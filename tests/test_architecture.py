"""The house as a test: who may import whom, and which library lives in which room."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = (  # each room imports only those after it
    "experiments",
    "command",
    "figures",
    "evaluation",
    "catalog",
    "concepts",
    "relevance",
    "attribution",
    "translation",
    "classifiers",
    "streaming",
    "datasets",
    "transforms",
    "_checks",
    "_files",
    "_keeping",
    "_text",
    "typing",
)
HOMES = {  # outside libraries that are used in one place only
    "flax": {"classifiers", "translation", "experiments", "command"},
    "orbax": {"streaming"},
    "matplotlib": {"figures", "experiments"},
    "jinja2": {"figures"},
    "tensorflow_datasets": {"datasets", "experiments"},
    "grain": {"datasets"},
    "PIL": {"datasets", "figures", "command"},
    "tyro": {"experiments", "command"},
    "tensorboardX": {"experiments"},
    "argparse": {"experiments"},
}
FILES = sorted((ROOT / "vexplain").rglob("*.py")) + sorted((ROOT / "experiments").rglob("*.py"))


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] == "experiments":
        return "experiments"
    return {"__main__": "command"}.get(parts[1], parts[1])


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def identity(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=identity)
def test_a_room_imports_only_what_is_below_it(path):
    here = room_of(path)
    if here == "__init__":
        return
    rooms = {name.split(".")[1] for name in imports(path) if name.startswith("vexplain.")}
    upward = {room for room in rooms - {here} if ORDER.index(room) <= ORDER.index(here)}
    assert not upward, f"{here} must not import {sorted(upward)}"


@pytest.mark.parametrize("path", FILES, ids=identity)
def test_an_outside_library_stays_in_its_room(path):
    here = room_of(path)
    for name in imports(path):
        library = name.split(".")[0]
        assert here in HOMES.get(library, {here}), f"{library} is not for {here}"


@pytest.mark.parametrize("path", FILES, ids=identity)
def test_the_library_does_not_print(path):
    if room_of(path) == "experiments":
        return
    calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
    assert not [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]


def test_every_room_is_in_the_order_and_every_file_has_a_docstring():
    assert {room_of(path) for path in FILES} - {"__init__"} == set(ORDER)
    for path in FILES:
        tree = ast.parse(path.read_text())
        assert not tree.body or ast.get_docstring(tree), f"{identity(path)} has no docstring"


def test_names_of_modules_say_what_they_hold():
    vague = {"utils", "helpers", "common", "misc", "base", "core"}
    assert not [identity(p) for p in FILES if p.stem in vague or vague & set(p.parts[-3:-1])]


@pytest.mark.parametrize(
    "room", [path for path in FILES if path.stem == "__init__" and room_of(path) != "__init__"], ids=identity
)
def test_no_function_hides_its_module(room):
    modules = {path.stem for path in room.parent.glob("*.py")} | {
        path.name for path in room.parent.iterdir() if path.is_dir()
    }
    hidden = {name.rpartition(".")[2] for name in imports(room)} & modules
    assert not hidden, f"modules of {identity(room)} whose name a function takes: {sorted(hidden)}"
