"""The house as a test: who may import whom, and which library lives in which room."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = (  # each room imports only what is on a lower line
    ("experiments", "__main__"),
    ("command",),
    ("evaluation", "figures"),
    ("explanation",),
    ("interpretation",),
    ("relevance",),
    ("faithfulness",),
    ("attribution",),
    ("translation",),
    ("training",),
    ("streaming",),
    ("metrics",),
    ("classifiers",),
    ("datasets",),
    ("transforms",),
    ("sharding",),
    ("validation", "files", "text"),
    ("typing",),
)
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
SIDEWAYS = {("figures", "evaluation")}  # a figure of scores
HOMES = {  # outside libraries that are used in one place only
    "flax": {"classifiers", "translation", "experiments", "command"},
    "orbax": {"streaming"},
    "matplotlib": {"figures"},
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
    return "experiments" if parts[0] == "experiments" else (*parts, "")[1]


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
    upward = {room for room in rooms - {here} if LEVEL[room] <= LEVEL[here] and (here, room) not in SIDEWAYS}
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


def test_every_room_has_a_floor_and_every_file_a_docstring():
    assert {room_of(path) for path in FILES} - {"__init__"} <= set(LEVEL)
    for path in FILES:
        tree = ast.parse(path.read_text())
        assert not tree.body or ast.get_docstring(tree), f"{identity(path)} has no docstring"


def test_names_of_modules_say_what_they_hold():
    vague = {"utils", "helpers", "common", "misc", "base", "core"}
    assert not [identity(p) for p in FILES if p.stem in vague or vague & set(p.parts[-3:-1])]
