"""Scores of explanations: arrays in, one number per example out."""

from vexplain.metrics.localization import best_iou as best_iou
from vexplain.metrics.localization import iou_area as iou_area
from vexplain.metrics.localization import iou_curve as iou_curve
