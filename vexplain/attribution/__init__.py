"""Methods that attribute a score to pixels: `method(apply, variables, images, targets=None, *, score, key)`.

All have this one signature and options of their own; `vexplain.METHODS` is their catalog, and says once what
these arguments are. They return signed attributions (batch, height, width, channels), or heatmaps (batch,
height, width). `attribution_method` makes a method of a function of one's own.
"""

from vexplain.attribution._guided_filter import guided_filter as guided_filter
from vexplain.attribution.attention import attention_rollout as attention_rollout
from vexplain.attribution.attention import generic_attention as generic_attention
from vexplain.attribution.calling import Network as Network
from vexplain.attribution.calling import attribution_method as attribution_method
from vexplain.attribution.cam_layers import cam_layer as cam_layer
from vexplain.attribution.cams import grad_cam as grad_cam
from vexplain.attribution.cams import grad_cam_plus_plus as grad_cam_plus_plus
from vexplain.attribution.cams import guided_grad_cam as guided_grad_cam
from vexplain.attribution.cams import guided_grad_cam_plus_plus as guided_grad_cam_plus_plus
from vexplain.attribution.cams import hires_cam as hires_cam
from vexplain.attribution.cams import layer_cam as layer_cam
from vexplain.attribution.cams import upsampled_activation as upsampled_activation
from vexplain.attribution.cams import xgrad_cam as xgrad_cam
from vexplain.attribution.controls import center_gaussian as center_gaussian
from vexplain.attribution.controls import object_segmentation as object_segmentation
from vexplain.attribution.controls import random_map as random_map
from vexplain.attribution.controls import sobel_edges as sobel_edges
from vexplain.attribution.full_gradient import full_grad as full_grad
from vexplain.attribution.gradient_free_cams import ablation_cam as ablation_cam
from vexplain.attribution.gradient_free_cams import eigen_cam as eigen_cam
from vexplain.attribution.gradient_free_cams import score_cam as score_cam
from vexplain.attribution.gradients import expected_gradients as expected_gradients
from vexplain.attribution.gradients import gradient as gradient
from vexplain.attribution.gradients import input_x_gradient as input_x_gradient
from vexplain.attribution.gradients import integrated_gradients as integrated_gradients
from vexplain.attribution.gradients import smooth_grad as smooth_grad
from vexplain.attribution.gradients import square_grad as square_grad
from vexplain.attribution.gradients import var_grad as var_grad
from vexplain.attribution.guided import deconvnet as deconvnet
from vexplain.attribution.guided import guided_backprop as guided_backprop
from vexplain.attribution.heatmaps import absolute_heatmaps as absolute_heatmaps
from vexplain.attribution.heatmaps import normalize_heatmaps as normalize_heatmaps
from vexplain.attribution.heatmaps import positive_heatmaps as positive_heatmaps
from vexplain.attribution.integrated_paths import blur_integrated_gradients as blur_integrated_gradients
from vexplain.attribution.integrated_paths import guided_integrated_gradients as guided_integrated_gradients
from vexplain.attribution.partitions import Partition as Partition
from vexplain.attribution.partitions import superpixels as superpixels
from vexplain.attribution.perturbation import feature_ablation as feature_ablation
from vexplain.attribution.perturbation import occlusion as occlusion
from vexplain.attribution.perturbation import rise as rise
from vexplain.attribution.propagation import Propagation as Propagation
from vexplain.attribution.propagation import attn_lrp as attn_lrp
from vexplain.attribution.propagation import deeplift as deeplift
from vexplain.attribution.propagation import lrp as lrp
from vexplain.attribution.propagation import propagate as propagate
from vexplain.attribution.regions import xrai as xrai
from vexplain.attribution.scores import Score as Score
from vexplain.attribution.scores import against as against
from vexplain.attribution.scores import binary as binary
from vexplain.attribution.scores import logit as logit
from vexplain.attribution.scores import margin as margin
from vexplain.attribution.scores import probability as probability
from vexplain.attribution.scores import similarity as similarity
from vexplain.attribution.shapley import exact_shapley as exact_shapley
from vexplain.attribution.shapley import shapley_sampling as shapley_sampling
from vexplain.attribution.surrogates import kernel_shap as kernel_shap
from vexplain.attribution.surrogates import lime as lime
