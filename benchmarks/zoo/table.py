"""The table of the zoo in Markdown, from what was measured of each network."""

from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.zoo.cases import Case
from vexplain.transforms.layer_kinds import LINEAR_KINDS

HEAD = (
    "network",
    "px",
    "layers",
    "axes known",
    "fields exact",
    "`cam_layer`",
    "ReLUs",
    "guided = reference",
    "s to trace",
)
_SMALL = 1e-6  # relative: rounding in float64, some packages keep constants in float32


def markdown(measured: Iterable[tuple[Case, Mapping[str, Any] | str]]) -> str:
    """Returns the table, a line a network, by package; a text in place of numbers says why there are none."""
    lines, package = [_line(HEAD), _line(["---"] * len(HEAD))], None
    for case, found in measured:
        if case.package != package:
            package = case.package
            lines.append(_line([f"**{package}**", *[""] * (len(HEAD) - 1)]))
        cells = [found, *[""] * (len(HEAD) - 2)] if isinstance(found, str) else _cells(case, found)
        lines.append(_line([case.network.split(".")[-1], *cells]))
    return "\n".join(lines) + "\n"


def _cells(case: Case, found: Mapping[str, Any]) -> list[str]:
    at = [found[f"batch_{batch}"] for batch in case.batches]
    known = list(dict.fromkeys(f"{a['before_head'] - a['unknown']} of {a['before_head']}" for a in at))
    return [
        str(case.size) if case.has_numbers else f"{case.size}, shapes",
        str(at[-1]["layers"]),
        "all" if not any(a["unknown"] for a in at) else " / ".join(known),
        _fields(found) if case.has_numbers else "",
        " / ".join(dict.fromkeys(_cam(case, found | a) for a in at)),
        f"{found['relus_found']} of {sum(found['relus_called'].values())}",
        _guided(case, found),
        f"{max(a['seconds'] for a in at):.1f}",
    ]


def _fields(found: Mapping[str, Any]) -> str:
    wrong = len(found["field_missed"]) + len(found["mixes_images"])
    text = f"{found['field_exact']} of {found['probes']}"
    return f"{text}, {wrong} **wrong**" if wrong else text


def _cam(case: Case, found: Mapping[str, Any]) -> str:
    if found["cam"] is None:
        return "error" if found["cam_right"] else "**error**"
    shape = " × ".join(map(str, found["cam_shape"]))
    right = found["cam_right"]
    if case.head != "token":
        right = right and found.get("way_is_whole", True)
    if case.head == "mean":
        right = right and found.get("beyond_mean", 0) < _SMALL
    return f"{found['cam_kind']}, {shape}" if right else f"**{found['cam_kind']}, {shape}**"


def _guided(case: Case, found: Mapping[str, Any]) -> str:
    """The error against guided ReLUs by hand, and what GUIDED refuses without `on_uncovered`."""
    others = sorted(kind for kind in found["kinds"] if kind not in (*LINEAR_KINDS, "relu", "relu6"))
    refusal = f"refused: {', '.join(others)}" if found["refused"] else ""
    if others and not refusal:
        refusal = f"**passes over {', '.join(others)}**"
    if not case.has_numbers or not found["guided_calls"]:
        return refusal or "not refused"
    error = found["guided_error"]
    text = "equal" if error == 0 else f"{error:.0e}"
    text = text if error < _SMALL else f"**{text}**"
    return "; ".join(filter(None, [text, refusal]))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
