"""Tests of tl_helpers.runtime."""

import os
import platform
import subprocess
import sys
import types

import pytest

from tl_helpers import runtime

CHOICES = {
    "quick": {"epochs": 1, "minutes": 0.2},
    "laptop": {"epochs": 5, "minutes": 8},
    "full": {"epochs": 10, "minutes": 120},
}


@pytest.mark.parametrize("given, expected", [("", "quick"), ("laptop", "laptop"), (" FULL ", "full")])
def test_scale_reads_the_environment(monkeypatch, given, expected):
    monkeypatch.setenv("TL_SCALE", given)
    assert runtime.scale() == expected


def test_unknown_scale_names_the_choices(monkeypatch):
    monkeypatch.setenv("TL_SCALE", "huge")
    with pytest.raises(ValueError, match="quick, laptop, full.*Received: 'huge'"):
        runtime.scale()


def test_settings_choose_and_show_all_three(monkeypatch, capsys):
    monkeypatch.setenv("TL_SCALE", "laptop")
    chosen = runtime.settings(**CHOICES)
    shown = capsys.readouterr().out
    assert (chosen.scale, chosen.epochs) == ("laptop", 5)
    assert "[laptop]" in shown and "quick" in shown and "12 s" in shown and "2.0 h" in shown


def test_settings_must_name_the_same_things():
    with pytest.raises(ValueError, match="same settings.*full"):
        runtime.settings(**{**CHOICES, "full": {"minutes": 1}})


def test_data_folder_must_exist(monkeypatch, tmp_path):
    monkeypatch.setenv("TL_DATA", str(tmp_path))
    assert runtime.data_folder() == tmp_path
    monkeypatch.setenv("TL_DATA", str(tmp_path / "missing"))
    with pytest.raises(FileNotFoundError, match="TL_DATA must name an existing folder"):
        runtime.data_folder()


def test_package_imports_no_framework():
    code = (
        "import sys, tl_helpers, tl_helpers.runtime, tl_helpers.results, tl_helpers.report, tl_helpers.recipes; "
        "print(sorted({'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3, 7}, raising=False)
    assert runtime.available_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")  # as on other systems than Linux
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert runtime.available_cores() == 5
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert runtime.available_cores() == 1


def test_device_and_versions_are_told():
    assert runtime.device()["cores"] >= 1
    assert runtime.versions()["python"].startswith("3.")


def test_peak_memory_is_this_processes_own():
    """A process started by a large one begins small, and its peak grows by what it takes."""
    large = b"1" * (400 * 2**20)
    code = (
        "from tl_helpers import runtime; before = runtime.peak_memory_mb()\n"
        "taken = bytearray(b'1') * (200 * 2**20)\n"
        "print(before, runtime.peak_memory_mb())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    if "None" in done.stdout:
        pytest.skip("the system does not tell")
    before, after = map(float, done.stdout.split())
    assert before < len(large) / 2**20, "not its parent's"
    assert 100 < after - before < 400, "half and twice: a busy system takes pages back, and gives more than asked for"


@pytest.mark.parametrize(
    "kind, flags, capability, expected",
    [
        ("cpu", {"avx2"}, None, "float32"),
        ("cpu", {"avx2", "avx512_bf16"}, None, "mixed_bfloat16"),
        ("cpu", set(), None, "float32"),
        ("gpu", {"avx512_bf16"}, "7.5", "float32"),
        ("gpu", set(), "9.0", "mixed_bfloat16"),
        ("gpu", set(), None, "float32"),
    ],
)
def test_sixteen_bits_only_where_hardware_multiplies_them(monkeypatch, kind, flags, capability, expected):
    monkeypatch.setattr(runtime, "device", lambda: {"kind": kind})
    monkeypatch.setattr(runtime, "_cpu_flags", lambda: flags)
    monkeypatch.setattr(runtime, "_ask_nvidia", lambda what: capability)
    assert runtime.training_dtype() == expected


@pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="other processors have no such switch"
)
@pytest.mark.parametrize("own", [None, "0"])
def test_fast_convolutions_are_on_unless_a_reader_says_otherwise(own):
    name = "TF_ENABLE_ONEDNN_OPTS"
    others = {key: value for key, value in os.environ.items() if key != name}
    code = f"import os, tl_helpers.runtime; print(os.environ[{name!r}])"
    given = others | ({name: own} if own else {})
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=given)
    assert done.stdout.strip() == (own or "1")


class Framework:
    """Keras as far as it tells about the machine."""

    def __init__(self, lies_on, backend="torch"):
        self.backend = types.SimpleNamespace(backend=lambda: backend)
        self.distribution = types.SimpleNamespace(list_devices=self._lists_none)
        self.ops = types.SimpleNamespace(zeros=lambda shape: types.SimpleNamespace(device=lies_on))

    @staticmethod
    def _lists_none(kind):
        raise NotImplementedError


@pytest.fixture
def fresh_device():
    runtime._device.cache_clear()
    yield
    runtime._device.cache_clear()


@pytest.mark.parametrize("lies_on, kind", [("cuda:0", "gpu"), ("mps:0", "gpu"), ("cpu", "cpu"), ("TFRT_CPU_0", "cpu")])
def test_a_backend_that_lists_no_devices_is_asked_where_a_tensor_lies(monkeypatch, fresh_device, lies_on, kind):
    monkeypatch.setattr(runtime, "_ask_nvidia", lambda what: None)
    monkeypatch.setitem(sys.modules, "keras", Framework(lies_on))
    assert runtime.device()["kind"] == kind


def test_the_device_is_looked_up_again_once_keras_is_there(monkeypatch, fresh_device):
    monkeypatch.setattr(runtime, "_ask_nvidia", lambda what: "A GPU")
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    assert runtime.device()["kind"] == "cpu"
    monkeypatch.setitem(sys.modules, "keras", Framework("cuda:0"))
    assert (runtime.device()["kind"], runtime.device()["name"]) == ("gpu", "A GPU")


def test_versions_ask_keras_which_backend_it_runs_on(monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setitem(sys.modules, "keras", Framework("cpu", backend="jax"))
    assert runtime.versions()["backend"].startswith("jax ")
    monkeypatch.delitem(sys.modules, "keras")
    assert runtime.versions()["backend"].startswith("tensorflow ")
