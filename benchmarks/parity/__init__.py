"""The same networks and methods in PyTorch and here: `make parity` compares them at full size."""
