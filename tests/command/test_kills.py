"""A run that is killed, and one of other settings on the same folder too, leaves nothing that is wrong.

`python -m tests.command.kills` does it at random moments, and looks at every byte.
"""

from tests.command import kills
from tests.command.runs import HERE, call


def test_after_kills_results_are_those_of_an_undisturbed_run(explained, images, tmp_path):
    shared = ["explain", "--model", f"{HERE}:sized", "--images", str(images), "--out", "results"]
    shared += ["--classes", str(images / "classes.txt"), "--num-shown", "3", "--batch-size", "4"]
    assert kills.run(shared, tmp_path, operation=150) is None, "amid the heatmaps"
    left = kills.contents(tmp_path / "results")
    assert "relevance.npz" in left
    assert "results.json" not in left
    assert kills.run([*shared, *kills.SETTINGS[1]], tmp_path, operation=90) is None, "after its own features"
    assert (tmp_path / "results/relevance.npz").read_bytes() != left["relevance.npz"]
    assert call("explain", images, tmp_path / "results") == 0
    names_of_folders = ("report.html", "results.json", "done.json")  # two folders, two names
    expected = {n: c for n, c in kills.contents(explained).items() if n not in names_of_folders}
    assert len(expected) > 25
    assert not kills.differences(tmp_path / "results", expected)
