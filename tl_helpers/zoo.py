"""Pretrained networks by the name pages give them, and which of them can be had here."""

from collections.abc import Sequence
from dataclasses import dataclass

import keras

from tl_helpers import backbones, runtime
from tl_helpers.downloads import DataUnavailable


@dataclass(frozen=True)
class Pretrained:
    """A backbone with the weights that were found for it.

    Attributes:
        label: as pages and records name it.
        backbone: as ``backbones.build`` takes it.
        weights: the name of the weights found.
    """

    label: str
    backbone: str
    weights: str

    def build(self, **options) -> keras.Model:
        """The network; ``options`` are ``resolution``, ``preprocessing`` and ``pooling`` as in ``backbones.build``."""
        return backbones.build(self.backbone, weights=self.weights, **options)


# For each label, weights in the order in which they are tried.
WANTED = {
    "VGG16 from Tiny ImageNet": ("vgg16", ("tiny-imagenet",)),
    "MobileNet 1.0 from ImageNet": ("mobilenet-1.0", ("imagenet-q8-folded", "imagenet")),
    "MobileNet 0.5 from ImageNet": ("mobilenet-0.5", ("imagenet-q8-folded", "imagenet")),
    "VGG16 from ImageNet": ("vgg16", ("imagenet",)),
    "ResNet50 from ImageNet": ("resnet50", ("imagenet",)),
}


def at_hand(labels: Sequence[str] | None = None) -> dict[str, Pretrained]:
    """The pretrained networks that can be had here; says on one line each which were not found.

    The quick scale downloads nothing: only what comes with the package or lies in ``TL_DATA`` is found there.

    Args:
        labels: which of ``WANTED`` to look for (default: all).
    Returns:
        Label to network.
    """
    found = {}
    for label in labels or WANTED:
        backbone, choices = WANTED[label]
        reasons = []
        for weights in choices:
            reason = _missing(backbone, weights)
            if reason is None:
                found[label] = Pretrained(label, backbone, weights)
                break
            reasons.append(f"{weights}: {reason}")
        print(f"{label}: {found[label].weights}" if label in found else f"{label}: not here ({'; '.join(reasons)})")
    return found


def _missing(backbone: str, weights: str) -> str | None:
    """Why weights cannot be had here, or None."""
    of = backbones.spec(backbone).weights[weights]
    folder = runtime.data_folder()
    by_hand = folder is not None and (folder / of.file).is_file()
    if of.url and not by_hand and runtime.scale() == "quick":
        return "the quick scale downloads nothing"
    if of.url is None and weights != "tiny-imagenet" and not by_hand:
        return "not in TL_DATA" if folder else "TL_DATA is not set"
    if of.url is None:
        return None
    try:
        backbones.build(backbone, weights=weights)
    except DataUnavailable:
        return "not reached"
    return None
