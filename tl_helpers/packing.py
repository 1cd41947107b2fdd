"""Weights at 8 bits each: fold batch norm, quantise per output channel, keep in one checked file."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from tl_helpers.downloads import DataRefused
from tl_helpers.whole_files import DAMAGE, whole

SUMS = "SHA256SUMS"
FORMAT = 1


def fold_batch_norm(
    kernel: np.ndarray, gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray, variance: np.ndarray, epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """One convolution that does what a convolution without bias and its batch norm (in inference) do together.

    With s = gamma / sqrt(variance + epsilon), batch norm is y -> s y + (beta - s mean), so the kernel takes the
    factor s and the rest becomes the bias (batch norm: Ioffe & Szegedy, 2015).

    Args:
        kernel: (height, width, channels in, channels out).
        gamma, beta, mean, variance: (channels out,), the batch norm's weights and moving statistics.
        epsilon: the batch norm's own.
    Returns:
        Kernel of the same shape and bias (channels out,), float32.
    Raises:
        ValueError: a vector has another length than the kernel has outputs.
    """
    channels = kernel.shape[-1]
    for name, vector in {"gamma": gamma, "beta": beta, "mean": mean, "variance": variance}.items():
        if np.shape(vector) != (channels,):
            raise ValueError(
                f"{name} must have shape ({channels},), one value an output channel. Received: {np.shape(vector)}"
            )
    factor = np.asarray(gamma, np.float64) / np.sqrt(np.asarray(variance, np.float64) + epsilon)
    bias = np.asarray(beta, np.float64) - factor * np.asarray(mean, np.float64)
    return (kernel * factor).astype(np.float32), bias.astype(np.float32)


def quantize(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round a kernel to 8 bits, with one scale an output channel (the last axis).

    Args:
        kernel: (..., channels out), any real type.
    Returns:
        Integers of the same shape (int8, -127 to 127) and scales (channels out,) float32; ``dequantize`` is off by
        at most half a scale.
    """
    kernel = np.asarray(kernel, np.float32)
    largest = np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1)))
    scale = np.where(largest > 0, largest / 127, 1.0).astype(np.float32)
    return np.clip(np.rint(kernel / scale), -127, 127).astype(np.int8), scale


def dequantize(integers: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The float32 kernel that ``quantize`` stands for."""
    return integers.astype(np.float32) * scale


def fold_model(model: keras.Model) -> dict[str, np.ndarray]:
    """All weights of a model trained with batch norm, as those of the same model without it.

    Every ``blockB_convI`` takes in its ``blockB_bnI``; other layers keep their weights.

    Args:
        model: such as ``source_model.build_vgg16_bn`` gives.
    Returns:
        ``"layer/kernel"`` and ``"layer/bias"`` to float32 arrays, in the model's order.
    """
    folded, norms = {}, {layer.name: layer for layer in model.layers if "_bn" in layer.name}
    for layer in (found for found in model.layers if found.weights and found.name not in norms):
        values = {
            weight.name: np.asarray(value, np.float32)
            for weight, value in zip(layer.weights, layer.get_weights(), strict=True)
        }
        norm = norms.get(layer.name.replace("_conv", "_bn"))
        if norm is not None:
            gamma, beta, mean, variance = norm.get_weights()
            mean = mean - values.get("bias", 0.0)  # a bias before batch norm only shifts its mean
            kernel, bias = fold_batch_norm(values["kernel"], gamma, beta, mean, variance, norm.epsilon)
            values = {"kernel": kernel, "bias": bias}
        folded |= {f"{layer.name}/{name}": value for name, value in values.items()}
    return folded


def pack(
    model: keras.Model, path: Path | str, class_names: Sequence[str] = (), facts: Mapping[str, str] | None = None
) -> str:
    """Fold, quantise and keep a trained model: everything that replacing the shipped weights takes.

    Writes the file, its line in ``SHA256SUMS`` and, where a model card of the same name lies beside it
    (``.md``), the table of facts in the card.

    Args:
        model: trained with batch norm after each convolution (``source_model.build_vgg16_bn``).
        path: the file to write, ending in ``.npz``.
        class_names: the classes its head was trained for, in the order of the outputs.
        facts: what to say about this version: data, training, results.
    Returns:
        The file's SHA-256.
    """
    path, facts = Path(path), dict(facts or {})
    sha256 = save(path, fold_model(model), class_names, facts)
    card = path.with_suffix(".md")
    if card.exists():
        _write_facts(
            card, {**facts, "File": f"`{path.name}`, {path.stat().st_size / 1e6:.1f} MB", "SHA-256": f"`{sha256}`"}
        )
    return sha256


def save(
    path: Path | str, weights: Mapping[str, np.ndarray], class_names: Sequence[str] = (), facts: Mapping | None = None
) -> str:
    """Write weights at 8 bits (kernels) and 32 bits (the rest), and note the file's SHA-256 beside it.

    Args:
        path: the file to write; its line in the folder's ``SHA256SUMS`` is written too.
        weights: ``"layer/kernel"`` and so on, as ``fold_model`` gives.
        class_names, facts: kept in the file.
    Returns:
        The file's SHA-256. The same weights give the same file.
    """
    path, arrays = Path(path), {}
    for name, value in weights.items():
        if name.endswith("/kernel"):
            arrays[f"{name}_q"], arrays[f"{name}_scale"] = quantize(value)
        else:
            arrays[name] = np.asarray(value, np.float32)
    arrays["class_names"] = np.array(list(class_names), dtype=str)
    arrays["note"] = np.array(json.dumps({"format": FORMAT, "facts": dict(facts or {})}, sort_keys=True))
    draft = io.BytesIO()
    np.savez_compressed(draft, **arrays)
    content = draft.getvalue()
    sha256 = hashlib.sha256(content).hexdigest()
    _replace(path, content)
    listed = {**sums(path.parent), path.name: sha256}
    _replace(path.parent / SUMS, "".join(f"{listed[name]}  {name}\n" for name in sorted(listed)).encode())
    return sha256


def load(path: Path | str, sha256: str | None = None) -> dict[str, np.ndarray]:
    """Read a file that ``save`` wrote, after checking every byte of it.

    Args:
        path: the file.
        sha256: what it must be (default: what ``SHA256SUMS`` in its folder says).
    Returns:
        ``"layer/kernel"`` and so on to float32 arrays; ``"class_names"`` to an array of texts.
    Raises:
        DataRefused: the file is missing, damaged or another one; the message gives both hashes.
    """
    path = Path(path)
    expected = sha256 or sums(path.parent).get(path.name)
    again = "Install the package again, or fetch the file again from the project's repository"
    if expected is None:
        raise DataRefused(
            f"{path} has no line in {path.parent / SUMS}, so it cannot be checked. Received: no hash. {again}"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataRefused(
            f"the weights {path} cannot be read ({error}). Expected SHA-256 {expected}. {again}"
        ) from error
    received = hashlib.sha256(content).hexdigest()
    if received != expected:
        raise DataRefused(
            f"the weights {path} are damaged or another version. Expected SHA-256 {expected}. "
            f"Received: {received} ({len(content):,} bytes). {again}"
        )
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in kept.files}
    except (*DAMAGE, OSError) as error:
        raise DataRefused(
            f"{path} has the expected hash but is no weight file ({error}). Received: {len(content):,} bytes. {again}"
        ) from error
    return _unpacked(arrays)


def _unpacked(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    weights = {}
    for name, value in arrays.items():
        if name.endswith("_q"):
            weights[name.removesuffix("_q")] = dequantize(value, arrays[f"{name.removesuffix('_q')}_scale"])
        elif not name.endswith("_scale") and name != "note":
            weights[name] = value
    return weights


def sums(folder: Path) -> dict[str, str]:
    """File name to SHA-256, as the folder's ``SHA256SUMS`` lists them."""
    listed = folder / SUMS
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    return dict(reversed(line.split(maxsplit=1)) for line in lines if line.strip())


def assign(model: keras.Model, weights: Mapping[str, np.ndarray]) -> None:
    """Put loaded weights into a model's layers by name.

    Raises:
        ValueError: a layer of the model with weights finds none in the file, or of another shape.
    """
    for layer in model.layers:
        for variable in layer.weights:
            name = f"{layer.name}/{variable.name}"
            received = weights[name].shape if name in weights else "nothing"
            if received != tuple(variable.shape):
                raise ValueError(
                    f"{name} needs weights of shape {tuple(variable.shape)}. Received: {received}; "
                    "use the matching file"
                )
            variable.assign(weights[name])


def _write_facts(card: Path, facts: Mapping[str, str]) -> None:
    begin, end = "<!-- facts: written by packing.pack -->", "<!-- end of facts -->"
    text = card.read_text(encoding="utf-8")
    if begin not in text or end not in text:
        raise ValueError(
            f"{card} must hold the lines {begin!r} and {end!r}. Received: a card without them; put them back"
        )
    rows = "".join(f"| {name} | {value} |\n" for name, value in facts.items())
    before, after = text.split(begin)[0], text.split(end)[1]
    _replace(card, f"{before}{begin}\n| fact | value |\n|---|---|\n{rows}{end}{after}".encode())


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with whole(path) as file:
        file.write(content)
