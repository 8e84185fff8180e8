"""The rendered an8Flower as a TFDS dataset: importing this registers `an8flower_rendered` with TFDS."""

from vexplain.datasets.an8flower_rendered.builder import An8flowerRendered as An8flowerRendered
from vexplain.datasets.an8flower_rendered.builder import RenderedConfig as RenderedConfig
