"""What an image classifier has learned, and why it decided as it did.

The names here are the way from a network to its explanation: `layers`, `read`, `edit` and `with_rules` look
inside any function `apply(variables, images) -> logits`; `learn_relevance`, `interpret` and `explain` find
the features that matter, show what they look like, and say why an image got its class. Everything else is in
the rooms: `vexplain.attribution`, `vexplain.classifiers`, `vexplain.concepts`, `vexplain.datasets`,
`vexplain.evaluation`, `vexplain.figures`, `vexplain.relevance`, `vexplain.streaming`,
`vexplain.transforms`, `vexplain.translation`. Each is imported when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
