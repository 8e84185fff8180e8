"""The names of the published networks, which cost nothing to import."""

NAMES = ("alexnet", "vgg_f", "vgg16", "vgg19", "resnet18", "resnet50", "convnext_tiny", "vit_b_16")
