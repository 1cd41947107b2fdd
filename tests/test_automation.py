"""What runs the repository: workflows that are valid, an environment of the right Python, a Makefile that fails when it should."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import environment
import pytest
import yaml
from conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_workflows_fit_the_schema():
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.github-workflows",
        *map(str, WORKFLOWS),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.name)
def test_every_step_of_a_workflow_fails_when_a_command_fails(path):
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["defaults"]["run"]["shell"] == "bash -euo pipefail {0}"
    for name, job in workflow["jobs"].items():
        assert "timeout-minutes" in job, name
        assert not any(step.get("continue-on-error") or "shell" in step for step in job["steps"]), name


@pytest.fixture
def small_environment(monkeypatch, tmp_path):
    """A project of two files and its environment, made for this version of Python, not yet stamped."""
    for name in ("requirements.txt", "pyproject.toml"):
        (tmp_path / name).write_text("one")
    (tmp_path / "pyvenv.cfg").write_text("home = somewhere\nversion = {}.{}.0\n".format(*sys.version_info[:2]))
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "FOLDER", tmp_path)
    monkeypatch.setattr(environment, "STAMP", tmp_path / "stamp")
    monkeypatch.setattr(environment, "python", lambda: Path(sys.executable))
    return tmp_path


def test_an_environment_is_ready_only_with_its_own_stamp(small_environment):
    assert not environment.ready(), "interrupted before the stamp"
    environment.STAMP.write_text(environment.fingerprint())
    assert environment.ready()
    (small_environment / "requirements.txt").write_text("two")
    assert not environment.ready(), "the lock changed"


@pytest.mark.parametrize("line", ["version = 3.2.1", "version_info = 3.2.1.final.0", ""])
def test_an_environment_of_another_python_is_cleared(small_environment, monkeypatch, line):
    """`python3.12 -m venv` over an environment of 3.11 would leave 3.11's interpreter there."""
    ran = []
    monkeypatch.setattr(
        subprocess, "run", lambda command, **_: ran.append(command) or subprocess.CompletedProcess([], 0)
    )
    environment.STAMP.write_text(environment.fingerprint())
    environment.install()
    assert "--clear" not in ran[0], "of this Python: the packages stay, and those that changed are installed"
    (small_environment / "pyvenv.cfg").write_text(line)
    assert not environment.ready()
    environment.install()
    made = [command for command in ran if "venv" in command]
    assert len(made) == 2 and "--clear" in made[1]


def test_help_lists_every_target():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = set(re.search(r"^\.PHONY: (.*)$", text, re.M).group(1).split())
    described = set(re.findall(r"^([a-z-]+):.*## ", text, re.M))
    assert phony == described
    assert {
        "help",
        "book",
        "test",
        "lab",
        "serve",
        "handout",
        "record",
        "reproduce",
        "bench",
        "lint",
        "clean",
        "lock",
    } <= phony


def make(*words: str) -> subprocess.CompletedProcess:
    """Run make with an environment that is set up already, and another program in place of its Python."""
    if os.name == "nt" or not shutil.which("make"):
        pytest.skip("no make here")
    told = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "SCALE")}
    return subprocess.run(["make", "PYTHON=true", *words], cwd=ROOT, capture_output=True, text=True, env=told)


TIMED = re.findall(r"^([a-z-]+):.*\n(?:\t.*\n)*\t@\$\(START\)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)


@pytest.mark.parametrize("flags", ["-c", "-euo pipefail -c"])
@pytest.mark.parametrize("target", TIMED)
def test_a_recipe_that_fails_fails_make_also_without_shellflags(target, flags):
    """GNU Make 3.81, macOS's own, runs every recipe with `-c` alone."""
    words = [target, f".SHELLFLAGS={flags}", "NOTEBOOK=a", "EXPERIMENT=a"]
    passed, failed = make("PY=true", *words), make("PY=false", *words)
    assert passed.returncode == 0 and f"make {target}: done" in passed.stdout, passed.stderr
    assert failed.returncode != 0 and "done" not in failed.stdout


def test_the_scale_asked_for_reaches_a_reproduction():
    words = ["-n", "reproduce", "EXPERIMENT=a"]
    assert '-m tl_helpers reproduce "a" --scale full;' in make(*words, "SCALE=full").stdout
    assert "reproduce" in make(*words).stdout and "--scale" not in make(*words).stdout
