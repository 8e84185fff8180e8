"""The comparison of libraries, docs/libraries.toml: what it may hold, and how it is written as Markdown."""

import ast
import functools
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

OURS = "vexplain"
_ANSWERS = ("yes", "partly", "no", "not found")
_ALLOWED = "pytest.mark.parametrize"  # of a test that we link to: it is never skipped


def check(comparison: Mapping[str, Any], root: Path) -> None:
    """Raises ValueError unless each cell has an answer, and each of ours but "no" names tests that exist.

    Args:
        comparison: the content of docs/libraries.toml.
        root: of the repository, which the names of tests, `file::test`, begin at.

    Example:
        >>> row = {"part": "Maps", "name": "Grad-CAM", "tests": [], "vexplain": "yes", "peer": "maybe"}
        >>> check({"packages": [{"key": "vexplain"}, {"key": "peer"}], "rows": [row]}, Path())
        Traceback (most recent call last):
        ValueError: Grad-CAM: peer says 'maybe': expected yes, partly, no, not found; has no test for our cell
    """
    keys, faults = {package["key"] for package in comparison["packages"]}, []
    for row in comparison["rows"]:
        found = []
        if unlike := keys ^ (set(row) - {"part", "name", "tests"}):
            found.append(f"cells that no package has, or the reverse: {', '.join(sorted(unlike))}")
        for key in sorted(keys & set(row)):
            if answer_of(row[key])[0] not in _ANSWERS:
                found.append(f"{key} says {row[key]!r}: expected {', '.join(_ANSWERS)}")
        has_it = answer_of(row[OURS])[0] in ("yes", "partly")
        if has_it != bool(row["tests"]):
            found.append("has no test for our cell" if has_it else "has tests for a cell that says no")
        found += [f"there is no {test}" for test in row["tests"] if line_of(test, root) is None]
        faults += [f"{row['name']}: {'; '.join(found)}"] if found else []
    if faults:
        raise ValueError("\n".join(faults))


def answer_of(cell: str) -> tuple[str, str]:
    """Returns a cell's answer, and what it says after the colon.

    Example:
        >>> answer_of("partly: no ROAD")
        ('partly', 'no ROAD')
    """
    answer, _, note = cell.partition(": ")
    return answer, note


def line_of(test: str, root: Path) -> int | None:
    """Returns the line at which a test begins; None where it is not there, or may be skipped.

    Args:
        test: `file::test`, a file of tests/.
        root: of the repository.
    """
    file, _, name = test.partition("::")
    path = root / file
    return _tests(path).get(name) if path.is_file() and file.startswith("tests/") else None


@functools.cache
def _tests(path: Path) -> dict[str, int]:
    functions = [n for n in ast.parse(path.read_text("utf-8")).body if isinstance(n, ast.FunctionDef)]
    return {
        function.name: function.lineno
        for function in functions
        if function.name.startswith("test_")
        and all(ast.unparse(mark).startswith(_ALLOWED) for mark in function.decorator_list)
    }


def link_of(test: str, root: Path) -> str:
    """Returns the address of a test: in the repository that pyproject.toml names, or relative to docs/.

    Args:
        test: `file::test`.
        root: of the repository.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    file = test.partition("::")[0]
    if address := project.get("urls", {}).get("Repository"):
        return f"{address}/blob/main/{file}#L{line_of(test, root)}"
    return f"../{file}"


def as_markdown(comparison: Mapping[str, Any], link: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """Yields the heading and the text of each part: a table, its notes, and the tests that it links to.

    Args:
        comparison: the content of docs/libraries.toml.
        link: the address of a test.

    Example:
        >>> peer = {"key": "peer", "name": "Peer", "version": "1.0", "networks": "PyTorch"}
        >>> row = {"part": "Maps", "name": "CAM", "tests": ["tests/a.py::test_b"]}
        >>> row |= {"vexplain": "yes", "peer": "partly: `Cam`"}
        >>> packages = [{"key": "vexplain", "name": "vexplain", "networks": "JAX"}, peer]
        >>> for heading, text in as_markdown({"packages": packages, "rows": [row]}, lambda test: "a.py"):
        ...     print(text)
        | | vexplain | Peer |
        | --- | --- | --- |
        | CAM | [yes](a.py) | partly {sup}`1` |
        <BLANKLINE>
        1. Peer: `Cam`
        <BLANKLINE>
        Tests: `tests/a.py::test_b`.
    """
    packages = {package["key"]: package["name"] for package in comparison["packages"]}
    for part in dict.fromkeys(row["part"] for row in comparison["rows"]):
        rows = [row for row in comparison["rows"] if row["part"] == part]
        notes: list[str] = []
        lines = [f"| | {' | '.join(packages.values())} |", "| --- |" + " --- |" * len(packages)]
        for row in rows:
            cells = [_cell(row, key, packages, notes, link) for key in packages]
            lines.append(f"| {row['name']} | {' | '.join(cells)} |")
        lines += ["", *(f"{n}. {note}" for n, note in enumerate(notes, 1))] if notes else []
        tests = dict.fromkeys(test for row in rows for test in row["tests"])
        yield part, "\n".join([*lines, "", f"Tests: {', '.join(f'`{test}`' for test in tests)}."])


def _cell(row: Mapping[str, Any], key: str, packages: Mapping[str, str], notes: list[str], link) -> str:
    answer, note = answer_of(row[key])
    if key == OURS and row["tests"]:
        further = [f" [{n}]({link(test)})" for n, test in enumerate(row["tests"][1:], 2)]
        text = f"[{answer}]({link(row['tests'][0])})" + "".join(further)
    elif answer == "yes" and note:  # what it is called there: shown where the word is pointed at
        return f"{{abbr}}`yes ({note.replace('`', '')})`"
    else:
        text = answer
    if not note:
        return text
    notes.append(f"{packages[key]}: {note}")
    return f"{text} {{sup}}`{len(notes)}`"
