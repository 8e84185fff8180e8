"""Leaves the script that makes the references alone: it needs PyTorch, and the tests do not."""

collect_ignore = ["make_references.py"]
