"""The command on a network of five channels and a folder of seven images, one of them broken."""

import json
import re

from vexplain.__main__ import main

HERE = "tests.command.networks"
COLORS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}


def call(command, images, out, *options, model="sized", classes=True):
    line = [command, "--model", f"{HERE}:{model}", "--images", str(images), "--out", str(out)]
    line += ["--classes", str(images / "classes.txt")] if classes else []
    line += ["--num-shown", "3"] if command == "explain" else []
    return main([*line, "--batch-size", "4", *options])


def cards_of(out):
    """The cards of a report: name, predicted and true class, probability, files and features."""
    data = re.search('<script id="data"[^>]*>(.*?)</script>', (out / "report.html").read_text(), re.S)
    return json.loads(data[1])["cards"]
