"""Leaves the scripts that make the references alone: they need PyTorch, and the tests do not."""

collect_ignore = ["make_references.py", "propagation_references.py"]
