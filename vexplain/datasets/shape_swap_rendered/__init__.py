"""The rendered shape swap as a TFDS dataset: importing this registers `shape_swap_rendered` with TFDS."""

from vexplain.datasets.shape_swap_rendered.builder import ShapeSwapConfig as ShapeSwapConfig
from vexplain.datasets.shape_swap_rendered.builder import ShapeSwapRendered as ShapeSwapRendered
