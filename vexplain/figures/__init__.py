"""What was found, made visible: sheets, curves and the report, in one quiet style.

Figures are matplotlib's, made without pyplot: nothing global is changed, no window opens, and the caller
keeps or saves them (`save_figure`).
"""

from vexplain.figures.class_sheets import class_sheet as class_sheet
from vexplain.figures.cue_decisions import shape_bias_figure as shape_bias_figure
from vexplain.figures.curves import iou_curves as iou_curves
from vexplain.figures.evaluations import evaluation_figure as evaluation_figure
from vexplain.figures.explanation_sheets import explanation_sheet as explanation_sheet
from vexplain.figures.gallery import Card as Card
from vexplain.figures.gallery import Gallery as Gallery
from vexplain.figures.gallery import Sheet as Sheet
from vexplain.figures.gallery import SheetRow as SheetRow
from vexplain.figures.gallery import sheet_pictures as sheet_pictures
from vexplain.figures.gallery import sheet_rows as sheet_rows
from vexplain.figures.heatmap_sheets import heatmap_sheet as heatmap_sheet
from vexplain.figures.report import Picture as Picture
from vexplain.figures.report import Report as Report
from vexplain.figures.report import Section as Section
from vexplain.figures.report import Table as Table
from vexplain.figures.report import package_versions as package_versions
from vexplain.figures.report import save_pictures as save_pictures
from vexplain.figures.report import write_report as write_report
from vexplain.figures.saving import png_bytes as png_bytes
from vexplain.figures.saving import save_figure as save_figure
from vexplain.figures.weights import weights_overview as weights_overview
