"""A plugin of pytest that writes the outcome of each test as a line of JSON, as soon as it is known.

    OUTCOMES=outcomes.jsonl python -m pytest -p benchmarks.outcomes tests/relevance

A run that is killed leaves what it knew. A line has the test, the outcome, seconds, and the last line of the
error of a test that failed.
"""

import json
import os
from typing import Any


def pytest_runtest_logreport(report: Any) -> None:
    """Writes a test that ran, or one that was skipped or failed before it ran."""
    if report.when == "call" or report.outcome != "passed":
        _write(report, report.duration)


def pytest_collectreport(report: Any) -> None:
    """Writes a file that could not be read."""
    if report.failed:
        _write(report, 0.0)


def _write(report: Any, seconds: float) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        return  # the process that started the workers hears of all tests
    line = {"test": report.nodeid, "outcome": report.outcome, "seconds": seconds}
    if report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        text = crash.message if crash else str(report.longrepr)
        line["error"] = " ".join(text.split())[:400]
    with open(os.environ["OUTCOMES"], "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
