"""The rendered try-on as a TFDS dataset: importing this registers `try_on_rendered` with TFDS."""

from vexplain.datasets.try_on_rendered.builder import TryOnConfig as TryOnConfig
from vexplain.datasets.try_on_rendered.builder import TryOnRendered as TryOnRendered
