"""Pretrained networks that turn pixels 0-255 into features; preprocessing lies inside the model.

A spec holds all that belongs to a backbone: how it is built, which weights there are, what input they expect.
"""

import hashlib
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import keras
import numpy as np
from keras import ops

from tl_helpers import downloads, packing, runtime

EMBEDDED = runtime.PACKAGE / "weights" / "vgg16_tiny_imagenet_32.npz"
IMAGENET_TERMS = "Weights under the terms of keras.applications; ImageNet: non-commercial research and education"
_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"
_STEPS = ("caffe", "tf", "torch", "unit")
_loaded: "weakref.WeakKeyDictionary[Preprocessing, dict]" = weakref.WeakKeyDictionary()


@keras.saving.register_keras_serializable("tl_helpers")
class Preprocessing(keras.layers.Layer):
    """Pixels 0-255 to what the weights expect; optionally resized first (bilinear).

    Args:
        steps: applied in turn: ``caffe`` (RGB to BGR, minus ImageNet's channel means), ``tf`` (to -1 ... 1), ``torch``
            (to 0 ... 1, minus mean, over standard deviation), ``unit`` (over 255).
        resolution: resize to this height and width in pixels; None keeps the size.
        smallest: refuse images smaller than this (pixels): they would vanish in the poolings.
    """

    def __init__(self, steps=("caffe",), resolution: int | None = None, smallest: int = 1, dtype="float32", **kwargs):
        super().__init__(dtype=dtype, **kwargs)
        self.steps, self.resolution, self.smallest = tuple(steps), resolution, smallest
        if unknown := set(self.steps) - set(_STEPS):
            raise ValueError(
                f"preprocessing steps must be among {', '.join(_STEPS)}. Received: {', '.join(sorted(unknown))}"
            )

    def call(self, images):
        x = ops.cast(images, "float32")
        if self.resolution:
            x = ops.image.resize(
                x, (self.resolution, self.resolution), interpolation="bilinear", data_format="channels_last"
            )
        sides = [side for side in x.shape[1:3] if side is not None]
        if sides and min(sides) < self.smallest:
            raise ValueError(
                f"this network needs images of at least {self.smallest} pixels a side. Received: {min(sides)}; "
                "enlarge them inside the model with resolution=..., e.g. resolution=32"
            )
        for step in self.steps:
            x = _apply(step, x)
        return x

    def get_config(self):
        own = {"steps": list(self.steps), "resolution": self.resolution, "smallest": self.smallest}
        return {**super().get_config(), **own}


def _apply(step: str, x):
    if step == "caffe":
        return ops.flip(x, axis=-1) - np.array([103.939, 116.779, 123.68], np.float32)
    if step == "tf":
        return x / 127.5 - 1.0
    x = x / 255.0
    if step == "torch":
        return (x - np.array([0.485, 0.456, 0.406], np.float32)) / np.array([0.229, 0.224, 0.225], np.float32)
    return x


@dataclass(frozen=True)
class Weights:
    """One set of weights: where it is and under which terms.

    Attributes:
        file: its file name.
        url: where it can be had; None where it comes with the package or is placed by hand.
        hash: ``sha256:…`` or ``md5:…`` of the file, or None where its publisher gives none.
        licence: the terms of use.
        load: puts the weights into a built model; returns the SHA-256 for the record.
    """

    file: str
    url: str | None
    hash: str | None
    licence: str
    load: Callable = field(repr=False)


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone and everything that must travel with its weights.

    Attributes:
        name: as ``build`` takes it.
        builder: an input tensor to a Keras model without its top and without pooling.
        weights: name to ``Weights``; the first is the default.
        mode: the preprocessing the weights expect.
        feature_size: length of the pooled feature vector.
        resolution: height and width in pixels the weights were trained at.
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
    resolution: Mapping[str, int]
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
            ``"twice"`` divides by 255 and then does what ``"own"`` does. Or one step by its name: ``caffe``, ``tf``, ``torch``.
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
    _check_choice("preprocessing", preprocessing, ("own", "twice", *_STEPS))
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


def weights_hash(model: keras.Model) -> str:
    """SHA-256 over the weights that are in a model now."""
    total = hashlib.sha256()
    for value in model.get_weights():
        total.update(f"{value.shape} {value.dtype}".encode())
        total.update(np.ascontiguousarray(value).data)
    return total.hexdigest()


def check_pixels(images: np.ndarray) -> np.ndarray:
    """Refuse what is no batch of RGB images with pixels 0-255.

    Args:
        images: (N, height, width, 3), integers or floats.
    Returns:
        The same images.
    Raises:
        ValueError: another shape, grey images, pixels outside 0-255, NaN, or floats that look like 0-1.
    """
    images = np.asarray(images)
    if images.ndim == 3 or (images.ndim == 4 and images.shape[-1] == 1):
        raise ValueError(
            f"images must be RGB, (N, height, width, 3). Received: {images.shape}, which looks grey (or a single image); "
            "repeat a grey channel with np.repeat(images.reshape(*images.shape[:3], 1), 3, axis=-1), "
            "make one image a batch with images[None]"
        )
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"images must have shape (N, height, width, 3), colours last. Received: {images.shape}")
    if images.dtype == np.uint8 or images.size == 0:
        return images
    if images.dtype.kind not in "iuf":
        raise ValueError(f"pixels must be numbers 0-255. Received: {images.dtype}; decode the images first")
    low, high = images.min(), images.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("pixels must be numbers 0-255. Received: NaN or infinity; look at how the images were read")
    if low < 0 or high > 255:
        raise ValueError(
            f"pixels must be 0-255. Received: {low:g} to {high:g}; leave preprocessing to the model, which does it inside"
        )
    if images.dtype.kind == "f" and 0 < high <= 1:
        raise ValueError(
            f"pixels must be 0-255. Received: {low:g} to {high:g}, which looks like 0-1; multiply by 255. "
            'To show what a wrong range does, use preprocessing="unit"'
        )
    return images


def _check_choice(what: str, received, choices: tuple) -> None:
    if received not in choices:
        raise ValueError(f"{what} must be one of {', '.join(map(repr, choices))}. Received: {received!r}")


def _load_embedded(model: keras.Model, weights: Weights) -> str:
    packing.assign(model, packing.load(EMBEDDED))
    return packing.sums(EMBEDDED.parent)[EMBEDDED.name]


def _load_official(model: keras.Model, weights: Weights) -> str:
    """Keras's own file: from ``TL_DATA``, else from Keras's cache or its server."""
    algorithm, _, expected = (weights.hash or "").partition(":")
    folder = runtime.data_folder()
    if folder is not None and (folder / weights.file).is_file():
        path = folder / weights.file
        if expected:
            downloads.check(path, expected, algorithm=algorithm, urls=[weights.url])
    else:
        try:
            path = keras.utils.get_file(weights.file, weights.url, cache_subdir="models", file_hash=expected or None)
        except Exception as error:  # get_file raises plain Exceptions for network faults
            raise downloads.DataUnavailable(
                f"the weights {weights.file} are neither in TL_DATA nor in Keras's cache, and could not be downloaded "
                f"({error}).\n{downloads.how_to_place(weights.file, [weights.url], None)}"
            ) from error
    _load_file(model, path)
    return downloads.digest(path)


def _load_placed(model: keras.Model, weights: Weights) -> str:
    """A file placed by hand. Its bytes depend on the version that wrote it, so the record takes the weights' own hash."""
    folder = runtime.data_folder()
    if folder is None or not (folder / weights.file).is_file():
        where = f"not in {folder}" if folder else "TL_DATA is not set"
        raise downloads.DataUnavailable(
            f"the weights {weights.file} are only read from the folder in TL_DATA. Received: {where}. Place the file there, "
            'or use weights="imagenet" (downloaded) or weights=None (random)'
        )
    _load_file(model, folder / weights.file)
    return weights_hash(model)


def _load_file(model: keras.Model, path) -> None:
    try:
        model.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise downloads.DataRefused(
            f"{path} holds no weights for {model.name}: truncated, damaged or another version ({error}). "
            "Remove it and fetch it again"
        ) from error


def _application(which: str, /, **options) -> Callable:
    def builder(x):
        return getattr(keras.applications, which)(include_top=False, weights=None, input_tensor=x, **options)

    return builder


def _official(folder: str, file: str, md5: str | None) -> Weights:
    return Weights(file, f"{_KERAS}/{folder}/{file}", md5 and f"md5:{md5}", IMAGENET_TERMS, _load_official)


def _mobilenet(alpha: float, feature_size: int, number: str, resolution: int) -> BackboneSpec:
    placed = Weights(
        f"mobilenet_{alpha}_imagenet.weights.h5", None, None, "Apache-2.0 (google-coral/test_data)", _load_placed
    )
    return BackboneSpec(
        name=f"mobilenet-{alpha}",
        builder=_application("MobileNet", alpha=alpha),
        mode="tf",
        feature_size=feature_size,
        weights={
            "imagenet": _official("mobilenet", f"mobilenet_{number}_224_tf_no_top.h5", None),
            "imagenet-q8-folded": placed,
        },
        resolution={"imagenet": 224, "imagenet-q8-folded": resolution},
        paper="Howard et al. (2017), MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications",
    )


_SPECS = {
    s.name: s
    for s in (
        BackboneSpec(
            name="vgg16",
            builder=_application("VGG16", name="vgg16"),
            mode="caffe",
            feature_size=512,
            weights={
                "tiny-imagenet": Weights(
                    EMBEDDED.name,
                    None,
                    f"sha256:{packing.sums(EMBEDDED.parent).get(EMBEDDED.name)}",
                    "ImageNet: non-commercial research and education",
                    _load_embedded,
                ),
                "imagenet": _official(
                    "vgg16", "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5", "6d6bbae143d832006294945121d1f1fc"
                ),
            },
            resolution={"tiny-imagenet": 32, "imagenet": 224},
            paper="Simonyan & Zisserman (2015), Very Deep Convolutional Networks for Large-Scale Image Recognition",
        ),
        _mobilenet(1.0, 1024, "1_0", 224),
        _mobilenet(0.5, 512, "5_0", 160),
        BackboneSpec(
            name="resnet50",
            builder=_application("ResNet50", name="resnet50"),
            mode="caffe",
            feature_size=2048,
            weights={
                "imagenet": _official(
                    "resnet", "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5", "4d473c1dd8becc155b73f8504c6f6626"
                )
            },
            resolution={"imagenet": 224},
            paper="He et al. (2016), Deep Residual Learning for Image Recognition",
        ),
    )
}
