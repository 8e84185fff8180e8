"""Cue objects: an object with a shape, a texture and a color that are independent, or tell the class."""

from vexplain.datasets.cue_objects.factors import BACKGROUNDS as BACKGROUNDS
from vexplain.datasets.cue_objects.factors import COLORS as COLORS
from vexplain.datasets.cue_objects.factors import CUES as CUES
from vexplain.datasets.cue_objects.factors import SHAPES as SHAPES
from vexplain.datasets.cue_objects.factors import TEXTURES as TEXTURES
from vexplain.datasets.cue_objects.factors import Factors as Factors
from vexplain.datasets.cue_objects.factors import draw_factors as draw_factors
from vexplain.datasets.cue_objects.renderer import intervene as intervene
from vexplain.datasets.cue_objects.renderer import render as render
from vexplain.datasets.cue_objects.renderer import render_factors as render_factors
from vexplain.datasets.cue_objects.source import SPLITS as SPLITS
from vexplain.datasets.cue_objects.source import CueSource as CueSource
