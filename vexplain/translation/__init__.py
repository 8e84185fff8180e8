"""Shape translation: an object of one domain in the shape of another, its appearance and pose kept.

A VAE for each domain, GAN losses, a cycle loss and a similarity loss, after Bollens, Tuytelaars, Oramas,
Towards Object Shape Translation Through Unsupervised Generative Deep Models, ICIP 2019. Of that paper the
structure is known and not the details: networks, weights and similarity loss are *reconstructed*.
"""

from vexplain.translation.losses import absolute_error as absolute_error
from vexplain.translation.losses import adversarial_loss as adversarial_loss
from vexplain.translation.losses import gradient_penalty as gradient_penalty
from vexplain.translation.losses import kl_divergence as kl_divergence
from vexplain.translation.model import DIRECTIONS as DIRECTIONS
from vexplain.translation.model import Translator as Translator
from vexplain.translation.model import TranslatorVariables as TranslatorVariables
from vexplain.translation.model import num_parameters as num_parameters
from vexplain.translation.networks import DOMAINS as DOMAINS
from vexplain.translation.networks import Latent as Latent
from vexplain.translation.networks import NetworkSettings as NetworkSettings
from vexplain.translation.networks import Sharing as Sharing
from vexplain.translation.similarity import color_distance as color_distance
from vexplain.translation.similarity import gram_distance as gram_distance
from vexplain.translation.similarity import latent_distance as latent_distance
from vexplain.translation.similarity import low_pass_distance as low_pass_distance
from vexplain.translation.similarity import offset_distance as offset_distance
from vexplain.translation.similarity import pose_distance as pose_distance
from vexplain.translation.similarity import soft_foreground as soft_foreground
from vexplain.translation.training import TranslationDiverged as TranslationDiverged
from vexplain.translation.training import TranslationState as TranslationState
from vexplain.translation.training import Weights as Weights
from vexplain.translation.training import adversarial_training as adversarial_training
from vexplain.translation.training import translation_report as translation_report
