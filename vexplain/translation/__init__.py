"""Shape translation: an object of one domain in the shape of another, its appearance and pose kept.

A VAE for each domain, GAN losses, a cycle loss and a similarity loss, after Bollens, Tuytelaars, Oramas,
Towards Object Shape Translation Through Unsupervised Generative Deep Models, ICIP 2019. Of that paper the
structure is known and not the details: networks, weights and similarity loss are *reconstructed*.
"""

# The networks and their training
from vexplain.translation.model import DIRECTIONS as DIRECTIONS
from vexplain.translation.model import Translator as Translator
from vexplain.translation.model import TranslatorVariables as TranslatorVariables
from vexplain.translation.model import num_parameters as num_parameters
from vexplain.translation.networks import DOMAINS as DOMAINS
from vexplain.translation.networks import Latent as Latent
from vexplain.translation.networks import NetworkSettings as NetworkSettings
from vexplain.translation.networks import Sharing as Sharing
from vexplain.translation.training import FULL_MODEL as FULL_MODEL
from vexplain.translation.training import VAES as VAES
from vexplain.translation.training import TranslationState as TranslationState
from vexplain.translation.training import Weights as Weights
from vexplain.translation.training import adversarial_training as adversarial_training
from vexplain.translation.training import train_translator as train_translator
from vexplain.translation.training import translation_report as translation_report

# isort: split
# The losses
from vexplain.translation.losses import absolute_error as absolute_error
from vexplain.translation.losses import adversarial_loss as adversarial_loss
from vexplain.translation.losses import gradient_penalty as gradient_penalty
from vexplain.translation.losses import kl_divergence as kl_divergence
from vexplain.translation.similarity import color_distance as color_distance
from vexplain.translation.similarity import gram_distance as gram_distance
from vexplain.translation.similarity import latent_distance as latent_distance
from vexplain.translation.similarity import low_pass_distance as low_pass_distance
from vexplain.translation.similarity import offset_distance as offset_distance
from vexplain.translation.similarity import pose_distance as pose_distance
from vexplain.translation.similarity import soft_foreground as soft_foreground

# isort: split
# The scores of translations, and the controls to compare them with
from vexplain.translation.appearance import delta_e as delta_e
from vexplain.translation.appearance import hue as hue
from vexplain.translation.appearance import hue_error as hue_error
from vexplain.translation.appearance import lab_from_rgb as lab_from_rgb
from vexplain.translation.appearance import masked_l1 as masked_l1
from vexplain.translation.appearance import masked_psnr as masked_psnr
from vexplain.translation.appearance import masked_ssim as masked_ssim
from vexplain.translation.appearance import mean_color as mean_color
from vexplain.translation.appearance import overlap_error as overlap_error
from vexplain.translation.appearance import texture_correlation as texture_correlation
from vexplain.translation.controls import fill_with_mean_color as fill_with_mean_color
from vexplain.translation.controls import mean_image as mean_image
from vexplain.translation.controls import nearest_neighbor as nearest_neighbor
from vexplain.translation.controls import paste_into_true_mask as paste_into_true_mask
from vexplain.translation.controls import translation_controls as translation_controls
from vexplain.translation.controls import turn_hue as turn_hue
from vexplain.translation.cycle import cycle_error as cycle_error
from vexplain.translation.cycle import hidden_channel_errors as hidden_channel_errors
from vexplain.translation.cycle import hidden_channel_ratios as hidden_channel_ratios
from vexplain.translation.frechet import frechet_distance as frechet_distance
from vexplain.translation.probes import linear_probe as linear_probe
from vexplain.translation.retrieval import color_histogram as color_histogram
from vexplain.translation.retrieval import recall_at as recall_at
from vexplain.translation.retrieval import reciprocal_rank as reciprocal_rank
from vexplain.translation.retrieval import retrieval_ranks as retrieval_ranks
from vexplain.translation.scores import closest_targets as closest_targets
from vexplain.translation.scores import shape_appearance_score as shape_appearance_score
from vexplain.translation.scores import translation_scores as translation_scores
from vexplain.translation.shape import boundary_f1 as boundary_f1
from vexplain.translation.shape import centroid_error as centroid_error
from vexplain.translation.shape import chamfer_distance as chamfer_distance
from vexplain.translation.shape import iou_gain as iou_gain
from vexplain.translation.shape import mask_iou as mask_iou
from vexplain.translation.shape import rotation_error as rotation_error
from vexplain.translation.shape import scale_ratio as scale_ratio
from vexplain.translation.without_truth import collapse as collapse
from vexplain.translation.without_truth import cycle_scores as cycle_scores
from vexplain.translation.without_truth import in_batches as in_batches
from vexplain.translation.without_truth import kept_scores as kept_scores
