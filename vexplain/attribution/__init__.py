"""Methods that attribute a score to pixels: `method(score_fn, variables, images, targets, *, ...)`.

`score_fn(variables, images, targets) -> (batch,)` says what is explained; `class_score(apply)` makes the
usual one. All methods return signed attributions of the shape of the images, or (batch, height, width, 1).
"""

from vexplain.attribution._guided_filter import guided_filter as guided_filter
from vexplain.attribution._occlusion import occlusion as occlusion
from vexplain.attribution.averaged_gradients import integrated_gradients as integrated_gradients
from vexplain.attribution.averaged_gradients import smooth_grad as smooth_grad
from vexplain.attribution.backpropagation import deconvnet as deconvnet
from vexplain.attribution.backpropagation import gradient as gradient
from vexplain.attribution.backpropagation import guided_backprop as guided_backprop
from vexplain.attribution.backpropagation import input_x_gradient as input_x_gradient
from vexplain.attribution.cam import grad_cam as grad_cam
from vexplain.attribution.cam import grad_cam_plus_plus as grad_cam_plus_plus
from vexplain.attribution.cam import layer_cam as layer_cam
from vexplain.attribution.cam import upsampled_activation as upsampled_activation
from vexplain.attribution.cam_layers import cam_layer as cam_layer
from vexplain.attribution.controls import center_gaussian as center_gaussian
from vexplain.attribution.controls import object_segmentation as object_segmentation
from vexplain.attribution.controls import random_map as random_map
from vexplain.attribution.controls import sobel_edges as sobel_edges
from vexplain.attribution.guided_cam import guided_grad_cam as guided_grad_cam
from vexplain.attribution.guided_cam import guided_grad_cam_plus_plus as guided_grad_cam_plus_plus
from vexplain.attribution.heatmaps import absolute_heatmaps as absolute_heatmaps
from vexplain.attribution.heatmaps import normalize_heatmaps as normalize_heatmaps
from vexplain.attribution.heatmaps import positive_heatmaps as positive_heatmaps
from vexplain.attribution.scores import class_score as class_score
