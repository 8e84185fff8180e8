"""What experiments write: JSON that every reader takes; names of checkpoints that follow the settings."""

import dataclasses
import json
from pathlib import Path

from experiments.job import fingerprint, plain_settings
from vexplain._files import write_json


@dataclasses.dataclass(frozen=True)
class Settings:
    out: Path = Path("runs")
    minutes: float = float("inf")
    width: int = 3


def refuse(constant):
    raise AssertionError(constant)


def test_what_is_unbounded_or_unknown_is_null(tmp_path):
    write_json(tmp_path / "a.json", {"loss": float("nan"), "settings": plain_settings(Settings())})
    found = json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse)
    assert found == {"loss": None, "settings": {"out": "runs", "minutes": None, "width": 3}}


def test_a_fingerprint_changes_with_what_a_checkpoint_depends_on():
    free = ("out", "minutes")
    first = fingerprint(Settings(), without=free)
    assert fingerprint(Settings(out=Path("elsewhere"), minutes=3.0), without=free) == first
    assert fingerprint(Settings(width=4), without=free) != first
