"""The rendered cue objects as a TFDS dataset: importing this registers `cue_objects_rendered` with TFDS."""

from vexplain.datasets.cue_objects_rendered.builder import CueObjectsConfig as CueObjectsConfig
from vexplain.datasets.cue_objects_rendered.builder import CueObjectsRendered as CueObjectsRendered
