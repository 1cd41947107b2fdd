"""Pretrained networks that turn pixels 0-255 into features; preprocessing lies inside the model.

A spec holds all that belongs to a backbone: how it is built, which weights there are, what input they expect.
"""

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import keras

from tl_helpers import packing
from tl_helpers.preprocessing import STEPS, Preprocessing, check_pixels
from tl_helpers.weight_files import EMBEDDED, Weights, embedded, official, placed, weights_hash

__all__ = [
    "EMBEDDED", "BackboneSpec", "Preprocessing", "Weights", "build", "check_pixels", "mobilenet", "names", "resnet50",
    "source_classifier", "spec", "vgg16", "weights_hash", "weights_identity",
]  # fmt: skip

# By the preprocessing layer: models made of a backbone's layers share it, copies with new weights do not.
_loaded: "weakref.WeakKeyDictionary[Preprocessing, dict]" = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone and everything that must travel with its weights.

    Attributes:
        name: as ``build`` takes it.
        builder: an input tensor to a Keras model without its top and without pooling.
        weights: name to ``Weights``; the first is the default.
        mode: the preprocessing the weights expect.
        feature_size: length of the pooled feature vector.
        paper: where the architecture comes from.
        licence: of the architecture's code.
        input_range: of the pixels the built model takes.
        smallest: smallest image side in pixels.
    """

    name: str
    builder: Callable = field(repr=False)
    weights: Mapping[str, Weights]
    mode: str
    feature_size: int
    paper: str
    licence: str = "Apache-2.0 (keras.applications)"
    input_range: tuple[int, int] = (0, 255)
    smallest: int = 32


def names() -> list[str]:
    """Names of all backbones."""
    return list(_SPECS)


def spec(name: str) -> BackboneSpec:
    """All about one backbone.

    Raises:
        ValueError: there is no backbone of that name.
    """
    if name not in _SPECS:
        raise ValueError(f"backbone must be one of {', '.join(_SPECS)}. Received: {name!r}")
    return _SPECS[name]


def build(
    name: str,
    *,
    weights: str | None = "default",
    resolution: int | None = None,
    preprocessing: str = "own",
    pooling: str | None = "avg",
) -> keras.Model:
    """A backbone: pixels 0-255 (N, height, width, 3) in, features out.

    Args:
        name: one of ``names()``.
        weights: one of its spec's; ``"default"`` its first, None random ones.
        resolution: resize the images inside the model to this many pixels a side.
        preprocessing: ``"own"`` is what the weights expect. The deliberate failures: ``"unit"`` only divides by 255;
            ``"twice"`` divides by 255 and then does what ``"own"`` does. Or one of ``caffe``, ``tf``, ``torch``.
        pooling: ``"avg"`` or ``"max"`` gives vectors (N, feature_size), None the feature map.
    Returns:
        A flat functional model with Keras's own layer names and a first layer ``"preprocessing"``.
    Raises:
        ValueError: an argument is none of its choices.
        DataUnavailable: the weights are neither at hand nor to be downloaded; the message says how to place them.
        DataRefused: the weight file is damaged or another one.
    """
    of = spec(name)
    chosen = next(iter(of.weights)) if weights == "default" else weights
    _check_choice("weights", chosen, (*of.weights, None))
    _check_choice("pooling", pooling, ("avg", "max", None))
    _check_choice("preprocessing", preprocessing, ("own", "twice", *STEPS))
    steps = {"own": (of.mode,), "twice": ("unit", of.mode)}.get(preprocessing, (preprocessing,))
    images = keras.Input((None, None, 3), name="images")
    before = Preprocessing(steps, resolution, of.smallest, name="preprocessing")
    base = of.builder(before(images))
    if chosen is not None:
        _loaded[before] = {"name": chosen, "sha256": of.weights[chosen].load(base, of.weights[chosen])}
    x = base.output
    if pooling is not None:
        pool = keras.layers.GlobalAveragePooling2D if pooling == "avg" else keras.layers.GlobalMaxPooling2D
        x = pool(name=f"{pooling}_pool")(x)
    return keras.Model(images, x, name=of.name.replace(".", "_").replace("-", "_"))


def vgg16(weights: str | None = "tiny-imagenet", **options) -> keras.Model:
    """VGG16 (Simonyan & Zisserman, 2015); ``"tiny-imagenet"`` comes with the package, ``"imagenet"`` is downloaded.

    Args:
        weights: ``"tiny-imagenet"``, ``"imagenet"`` or None.
        options: ``resolution``, ``preprocessing``, ``pooling`` as in ``build``.
    """
    return build("vgg16", weights=weights, **options)


def mobilenet(alpha: float = 1.0, weights: str | None = "imagenet", **options) -> keras.Model:
    """MobileNet v1 (Howard et al., 2017) of width ``alpha``, 0.5 or 1.0.

    Args:
        alpha: share of the channels of each layer.
        weights: ``"imagenet"``, ``"imagenet-q8-folded"`` (8-bit, batch norm folded: not for showing what batch norm
            does when fine-tuning) or None.
        options: ``resolution``, ``preprocessing``, ``pooling`` as in ``build``.
    """
    return build(f"mobilenet-{float(alpha)}", weights=weights, **options)


def resnet50(weights: str | None = "imagenet", **options) -> keras.Model:
    """ResNet50 (He et al., 2016).

    Args:
        weights: ``"imagenet"`` or None.
        options: ``resolution``, ``preprocessing``, ``pooling`` as in ``build``.
    """
    return build("resnet50", weights=weights, **options)


def source_classifier() -> tuple[keras.Model, list[str]]:
    """The whole embedded source model: pixels 0-255 in, 200 logits out, and its class names."""
    backbone, weights = vgg16(), packing.load(EMBEDDED)
    class_names = [str(name) for name in weights["class_names"]]
    head = keras.layers.Dense(len(class_names), dtype="float32", name="head")
    model = keras.Model(backbone.input, head(backbone.output), name="source_model")
    head.set_weights([weights["head/kernel"], weights["head/bias"]])
    return model, class_names


def weights_identity(model: keras.Model) -> dict | None:
    """Which weights a model started from, for the record; None from scratch.

    It names the weights loaded by ``build``, also for a model made of a backbone's layers (``models.transfer_model``)
    and after training. For ``"tiny-imagenet"`` the SHA-256 is that of the shipped file.

    Returns:
        ``{"name", "sha256"}`` or None.
    """
    for layer in model.layers:
        if isinstance(layer, keras.Model) and (found := weights_identity(layer)):
            return found
        if isinstance(layer, Preprocessing) and layer in _loaded:
            return dict(_loaded[layer])
    return None


def _check_choice(what: str, received, choices: tuple) -> None:
    if received not in choices:
        raise ValueError(f"{what} must be one of {', '.join(map(repr, choices))}. Received: {received!r}")


def _application(which: str, /, **options) -> Callable:
    def builder(x):
        return getattr(keras.applications, which)(include_top=False, weights=None, input_tensor=x, **options)

    return builder


def _vgg16() -> BackboneSpec:
    file, md5 = "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5", "6d6bbae143d832006294945121d1f1fc"
    return BackboneSpec(
        name="vgg16",
        builder=_application("VGG16", name="vgg16"),
        weights={"tiny-imagenet": embedded(), "imagenet": official("vgg16", file, md5, 59)},
        mode="caffe",
        feature_size=512,
        paper="Simonyan & Zisserman (2015), Very Deep Convolutional Networks for Large-Scale Image Recognition",
    )


def _mobilenet(alpha: float, feature_size: int, number: str, folded_at: int) -> BackboneSpec:
    folded = placed(f"mobilenet_{alpha}_imagenet.weights.h5", "Apache-2.0 (google-coral/test_data)", folded_at)
    return BackboneSpec(
        name=f"mobilenet-{alpha}",
        builder=_application("MobileNet", alpha=alpha),
        weights={
            "imagenet": official("mobilenet", f"mobilenet_{number}_224_tf_no_top.h5", None),
            "imagenet-q8-folded": folded,
        },
        mode="tf",
        feature_size=feature_size,
        paper="Howard et al. (2017), MobileNets: Efficient Convolutional Neural Networks for Mobile Vision",
    )


def _resnet50() -> BackboneSpec:
    file, md5 = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5", "4d473c1dd8becc155b73f8504c6f6626"
    return BackboneSpec(
        name="resnet50",
        builder=_application("ResNet50", name="resnet50"),
        weights={"imagenet": official("resnet", file, md5, 95)},
        mode="caffe",
        feature_size=2048,
        paper="He et al. (2016), Deep Residual Learning for Image Recognition",
    )


_SPECS = {
    of.name: of for of in (_vgg16(), _mobilenet(1.0, 1024, "1_0", 224), _mobilenet(0.5, 512, "5_0", 160), _resnet50())
}
