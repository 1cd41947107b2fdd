"""Seed, versions, device, scale and folders: the only reader of the environment.

Environment variables:
    TL_SCALE: ``quick`` (default), ``laptop`` or ``full``.
    TL_DATA: a folder with data and weights placed by hand.
    TL_CACHE: where downloads and kept features go (default: the user's cache folder).
    TL_RECORD: ``1`` appends finished runs to the package's own records.
    TL_RESUME: with ``TL_RECORD=1``, ``1`` skips runs that are recorded already (after an interruption).
    TL_SCRATCH: where other runs are noted (default: ``runs`` in the cache folder).
    KERAS_BACKEND: ``tensorflow`` (default), ``jax`` or ``torch``; read by Keras itself.
"""

import itertools
import logging
import os
import platform
import re
import subprocess
import sys
import textwrap
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace

import platformdirs

SCALES = ("quick", "laptop", "full")
CELL = 26  # letters a column of the settings, which a page shows side by side
PACKAGE = Path(__file__).resolve().parent

# TensorFlow prints start-up notes into notebook pages; only errors are of use to a reader.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# On processors before Cascade Lake (Zen 4), TensorFlow leaves the library for fast convolutions off: half the speed.
# Must be set before TensorFlow is imported; who set it already is left alone.
if platform.machine().lower() in ("x86_64", "amd64"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# A level would not last: in a notebook TensorFlow sets its own on import, and writes warnings to stdout.
logging.getLogger("tensorflow").addFilter(lambda record: record.levelno >= logging.ERROR)


def scale() -> str:
    """The scale of this run: ``TL_SCALE``, or ``quick`` when it is not set.

    Raises:
        ValueError: ``TL_SCALE`` is none of the three scales.
    """
    name = os.environ.get("TL_SCALE", "").strip().lower() or "quick"
    if name not in SCALES:
        raise ValueError(
            f"TL_SCALE must be one of {', '.join(SCALES)}. Received: {name!r}. Set it anew, e.g. TL_SCALE=quick"
        )
    return name


def settings(*, quick: dict, laptop: dict, full: dict) -> SimpleNamespace:
    """Choose this run's settings by scale, show all three side by side, and say what the run costs.

    Args:
        quick, laptop, full: the same keys each; ``minutes`` is the expected wall time on two CPU cores.
    Returns:
        The chosen settings as attributes, with ``scale`` added.
    Raises:
        ValueError: the three do not name the same settings, or ``minutes`` is missing.
    """
    choices = {"quick": quick, "laptop": laptop, "full": full}
    keys = list(quick)
    for name, choice in choices.items():
        if set(choice) != set(keys) or "minutes" not in choice:
            raise ValueError(
                f"every scale needs the same settings, 'minutes' among them. Received for {name}: {sorted(choice)}; "
                f"for quick: {sorted(keys)}"
            )
    chosen = scale()
    print(_side_by_side(choices, chosen))
    seen = versions()
    print(
        f"\nThis run: scale {chosen}, about {duration(choices[chosen]['minutes'])} on 2 cores of a recent server "
        f"processor (an older one may take several times as long); here: {device()['name']}."
    )
    print(
        f"Python {seen['python']}, Keras {seen['keras']} on {seen['backend']}. Change the scale with TL_SCALE and restart."
    )
    return SimpleNamespace(scale=chosen, **choices[chosen])


def duration(minutes: float) -> str:
    """A time in words: ``36 s``, ``12 min`` or ``2.4 h``."""
    if minutes < 1:
        return f"{minutes * 60:.0f} s"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _side_by_side(choices: dict[str, dict], chosen: str) -> str:
    heads = [f"[{name}]" if name == chosen else name for name in SCALES]
    rows = [["", *heads]]
    for key in choices["quick"]:
        cells = [choices[name][key] for name in SCALES]
        shown = [duration(c) for c in cells] if key == "minutes" else [str(c) for c in cells]
        parts = [textwrap.wrap(cell, CELL, break_long_words=False) for cell in shown]
        name = "time" if key == "minutes" else key
        rows += [list(line) for line in itertools.zip_longest([name], *parts, fillvalue="")]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def set_seed(seed: int) -> None:
    """Seed Python, NumPy and the Keras backend (Keras: ``keras.utils.set_random_seed``)."""
    import keras

    keras.utils.set_random_seed(seed)


def versions() -> dict[str, str]:
    """Versions of Python, Keras, its backend and NumPy, without importing any of them."""
    if "keras" in sys.modules:  # a reader's keras.json decides as well
        backend = sys.modules["keras"].backend.backend()
    else:
        backend = os.environ.get("KERAS_BACKEND", "").strip() or "tensorflow"
    found = {"python": platform.python_version(), "keras": _version("keras")}
    number = (
        _version(backend) if backend != "tensorflow" else _version("tensorflow", "tensorflow-cpu", "tensorflow-macos")
    )
    return {**found, "backend": f"{backend} {number}", "numpy": _version("numpy")}


def _version(*names: str) -> str:
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "not installed"


def device() -> dict:
    """The machine a run is measured on: ``kind`` (cpu or gpu), ``name`` and ``cores``; a GPU once Keras is imported."""
    return _device("keras" in sys.modules)


@cache
def _device(keras_is_there: bool) -> dict:
    gpu = _gpu_name() if keras_is_there else None
    name = gpu or _cpu_name()
    return {"kind": "gpu" if gpu else "cpu", "name": name, "cores": available_cores()}


def training_dtype() -> str:
    """The Keras dtype policy in which this machine trains convolutions fastest.

    Returns:
        ``"mixed_bfloat16"`` where the hardware multiplies 16-bit bfloat16 numbers (processors with AVX512-BF16 or AMX,
        NVIDIA GPUs of compute capability 8 and newer), else ``"float32"``: elsewhere 16 bits are emulated, and an epoch
        takes many times as long.
    """
    if device()["kind"] == "gpu":
        capability = _ask_nvidia("compute_cap")
        return "mixed_bfloat16" if capability and float(capability) >= 8 else "float32"
    return "mixed_bfloat16" if {"avx512_bf16", "amx_bf16"} & _cpu_flags() else "float32"


def _cpu_flags() -> set[str]:
    """What the processor can do, in Linux's words; empty on other systems."""
    try:
        found = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        return set()
    return set(found.group(1).split()) if found else set()


def available_cores() -> int:
    """CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_name() -> str:
    try:
        said = dict(re.findall(r"^([\w ]+?)\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M))
    except OSError:
        said = {}
    name = said.get("model name", platform.processor() or platform.machine())
    if "cpu family" in said and not re.search(r"\d", name):  # a virtual machine may hide which processor it has
        name += f", family {said['cpu family']} model {said['model']}"
    return name


def _gpu_name() -> str | None:
    import keras

    try:
        found = keras.distribution.list_devices("gpu")
    except Exception:  # PyTorch lists none, JAX fails without a GPU: where does a tensor lie?
        lies_on = str(getattr(keras.ops.zeros(1), "device", ""))
        found = [lies_on] if lies_on.startswith(("cuda", "mps")) else []
    return (_ask_nvidia("name") or str(found[0])) if found else None


def _ask_nvidia(what: str) -> str | None:
    """What nvidia-smi says of the first GPU, or None."""
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=20, check=True
        )
        return answer.stdout.splitlines()[0].strip()
    except (OSError, subprocess.SubprocessError, IndexError):
        return None


def peak_memory_mb() -> float | None:
    """Highest resident memory of this process so far, in MiB; None where the system does not tell."""
    status = Path("/proc/self/status")  # Linux; `ru_maxrss` there also counts the process that started this one
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        if "VmHWM" in lines:
            return int(lines["VmHWM"].split()[0]) / 2**10
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def data_folder() -> Path | None:
    """The folder named by ``TL_DATA``, or None when it is not set.

    Raises:
        FileNotFoundError: ``TL_DATA`` names a folder that does not exist.
    """
    given = os.environ.get("TL_DATA", "").strip()
    if not given:
        return None
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"TL_DATA must name an existing folder. Received: {given}. Create it, or unset TL_DATA")
    return folder


def cache_folder() -> Path:
    """Where downloads and kept features go: ``TL_CACHE``, or the user's cache folder."""
    given = os.environ.get("TL_CACHE", "").strip()
    return Path(given).expanduser() if given else Path(platformdirs.user_cache_dir("tl_helpers", appauthor=False))


def recording() -> bool:
    """Whether finished runs go into the package's own records (``TL_RECORD=1``)."""
    return os.environ.get("TL_RECORD", "").strip() == "1"


def resuming() -> bool:
    """Whether runs that are recorded already are skipped (``TL_RESUME=1``, only while recording)."""
    return recording() and os.environ.get("TL_RESUME", "").strip() == "1"


def records_folder() -> Path:
    """The package's run records, one JSON-lines file an experiment."""
    return PACKAGE / "records"


def scratch_folder() -> Path:
    """Where runs are noted that are not being recorded: ``TL_SCRATCH``, or ``runs`` in the cache folder."""
    given = os.environ.get("TL_SCRATCH", "").strip()
    return Path(given).expanduser() if given else cache_folder() / "runs"
