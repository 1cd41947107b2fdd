"""The repository as a whole: one address, one import direction, one lock, workflows that are valid."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import api_page
import environment
import model_card
import notebooks
import pytest
import sync
import teaching_page
import yaml
from conftest import ROOT

PACKAGE = ROOT / "tl_helpers"
MODULES = sorted(p.stem for p in PACKAGE.glob("*.py") if p.stem != "__init__")
FRAMEWORKS = {"keras", "tensorflow", "jax", "torch"}
LIGHT = {
    "runtime",
    "results",
    "report",
    "bands",
    "recipes",
    "datasets",
    "splits",
    "downloads",
    "whole_files",
    "plots",
    "notebook_runs",
    "model_commands",
}
# From the ground up: a module may import only from rows above its own (or its own row, without a circle).
LAYERS = [
    {"runtime", "whole_files"},
    {
        "downloads",
        "results",
        "recipes",
        "plots",
        "datafiles",
        "notebook_runs",
        "preprocessing",
        "packing",
        "picture_files",
        "class_folders",
        "digests",
        "wording",
    },
    {"cifar_files", "tiny_imagenet_files", "digits_files", "splits"},
    {"datasets", "weight_files", "report"},
    {"bands", "backbones", "source_model"},
    {"models", "features", "batches", "checkpoints", "costs", "zoo", "optimizers", "losses", "shifts", "fit_checks"},
    {"training"},
    {"evaluation", "pictures", "predictor", "explain", "finetuning"},
    {"serving"},
    {"bench", "model_commands", "__main__"},
]


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def imported(module: str, *, top_only: bool = False) -> set[str]:
    """Names a module imports: ``tl_helpers.x`` as ``x``, others by their first part."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    names = set()
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {a.name.removeprefix("tl_helpers.").split(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "tl_helpers":
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.removeprefix("tl_helpers.").split(".")[0])
    return names


def layer(module: str) -> int:
    found = [i for i, names in enumerate(LAYERS) if module in names]
    assert found, f"give the module {module!r} its place in LAYERS (tests/test_repository.py)"
    return found[0]


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downwards(module):
    others = imported(module) & set(MODULES)
    assert all(layer(other) <= layer(module) for other in others), f"{module} imports {sorted(others)}"


def test_imports_make_no_circle():
    edges = {m: imported(m, top_only=True) & set(MODULES) for m in MODULES}
    done = set()
    while edges:
        free = [m for m, needs in edges.items() if needs <= done]
        assert free, f"a circle among {sorted(edges)}"
        done |= set(free)
        edges = {m: needs for m, needs in edges.items() if m not in done}


@pytest.mark.parametrize("module", sorted(LIGHT & set(MODULES)))
def test_light_modules_name_no_framework_at_the_top(module):
    assert not imported(module, top_only=True) & FRAMEWORKS


@pytest.mark.parametrize("module", MODULES)
def test_only_runtime_reads_the_environment(module):
    if module == "runtime":
        return
    text = (PACKAGE / f"{module}.py").read_text(encoding="utf-8")
    assert "os.environ" not in text and "getenv" not in text


@pytest.mark.parametrize("module", MODULES)
def test_the_package_is_backend_agnostic(module):
    assert not imported(module) & {"tensorflow", "jax", "torch"}


# --- one address


def test_the_address_is_in_step_everywhere():
    done = subprocess.run([sys.executable, "tools/sync.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["README.md", "_config.yml", "CITATION.cff", "book/setup.md"])
def test_files_carry_the_address(name):
    assert sync.slug() in (ROOT / name).read_text(encoding="utf-8")


def test_the_start_page_cites_the_course_as_the_citation_file_does():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    page = (ROOT / "book" / "index.md").read_text(encoding="utf-8")
    wanted = [cited[name] for name in ("title", "version", "url")]
    wanted += [str(cited["date-released"])[:4], *(author["name"] for author in cited["authors"])]
    assert [text for text in wanted if f"{{{text}}}" not in page] == []


def test_no_page_names_another_address():
    other = re.compile(r"(?:colab\.research\.google\.com/github|mybinder\.org/v2/gh)/([\w.-]+/[\w.-]+)")
    for path in sync.files():
        for found in other.findall(path.read_text(encoding="utf-8")):
            assert found == sync.slug(), f"{path.name}: {found}"


def test_a_new_address_reaches_every_form():
    old, new = "a-team/a-course", "B/c"
    text = "https://github.com/a-team/a-course/actions https://a-team.github.io/a-course/ colab/github/a-team/a-course/blob"
    moved = sync.with_address(text, old, new)
    assert moved == "https://github.com/B/c/actions https://b.github.io/c/ colab/github/B/c/blob"
    assert "github.com/B/c" in sync.first_cell(new)
    notebook = json.dumps({"cells": [{"cell_type": "markdown", "source": ["https://github.com/a-team/a-course/blob"]}]})
    assert "https://github.com/B/c/blob" in sync.wanted(Path("page.ipynb"), notebook, old, new)


def test_the_teaching_plan_has_every_chapter_once_and_the_start_page_its_times():
    """What the chapters state is carried into the tables by `make sync`; prose about them is held here."""
    files = [file for listed in teaching_page.chapters().values() for file in listed]
    planned = [slug for week, _ in teaching_page.WEEKS for slug in week]
    assert sorted(planned) == sorted(file.split("/")[-1] for file in files)
    minutes = [teaching_page.opening(file)["minutes"] for file in files]
    start = (ROOT / "book" / "index.md").read_text(encoding="utf-8")
    assert (min(minutes), max(minutes)) == (30, 90) and "from half an hour to an hour and a half" in start
    route = start.split("**Two hours.**")[1].split("Half an hour each")[0]
    assert {teaching_page.opening(f"book/{page}")["minutes"] for page in re.findall(r"\{doc\}`(.+?)`", route)} == {30}


# --- the site's configuration


def test_every_bibliography_is_listed_and_every_key_is_unique():
    listed = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["bibtex_bibfiles"]
    present = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "book").rglob("*.bib"))
    assert sorted(listed) == present, "run `make sync`"
    keys = [
        k
        for name in listed
        for k in re.findall(r"^@\w+\{\s*([^,\s]+)", (ROOT / name).read_text(encoding="utf-8"), re.M)
    ]
    assert len(keys) == len(set(keys)), sorted({k for k in keys if keys.count(k) > 1})


def test_the_contents_name_existing_pages():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    named = [toc["root"]] + [c["file"] for part in toc["parts"] for c in part["chapters"]]
    assert len(notebooks.pages()) == len(named) == len(set(named))


def test_the_api_page_lists_every_module():
    assert api_page.PAGE.read_text(encoding="utf-8") == api_page.page(), "run `python tools/api_page.py`"


def test_the_model_card_says_what_the_records_say():
    assert model_card.CARD.read_text(encoding="utf-8") == model_card.card(), "run `python tools/model_card.py`"


def test_served_libraries_have_their_licences():
    for folder in (ROOT / "static" / "lib").iterdir():
        if folder.is_dir():
            assert (folder / "LICENSE").exists(), folder.name
            assert f"{folder.name}/" in (ROOT / "static" / "lib" / "README.md").read_text(encoding="utf-8")


# --- the package


def test_package_dependencies_have_lower_bounds_only_and_no_framework():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for line in project["dependencies"]:
        assert re.fullmatch(r"[\w-]+>=[\d.]+", line), line
        assert not line.startswith(("tensorflow", "torch", "jax"))


def test_the_lock_is_complete_and_names_no_server():
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locked = set(re.findall(r"^([\w.-]+)==", text, re.M))
    wanted = project["dependencies"] + [line for extra in project["optional-dependencies"].values() for line in extra]
    missing = {re.match(r"[\w-]+", line).group() for line in wanted} - locked
    assert not missing, f"run `make lock`: {missing}"
    assert "://" not in text
    assert re.search(r"^tensorflow-cpu==\S+ ; .*platform_machine == 'x86_64' and sys_platform == 'linux'", text, re.M)


def test_fast_convolutions_are_switched_on_in_one_place_and_never_off():
    name = "TF_ENABLE_ONEDNN" + "_OPTS"
    found = [
        path.relative_to(ROOT).as_posix()
        for path in tracked()
        if path.suffix in {".py", ".yml", ".ipynb", ".toml"} or path.name in {"Makefile", "run"}
        if path != Path(__file__).resolve() and name in path.read_text(encoding="utf-8")
    ]
    assert set(found) <= {"tl_helpers/runtime.py", "tests/test_runtime.py"}, found


def test_no_file_names_a_folder_of_one_machine():
    private = re.compile(r"(?<![\w.])/(opt|work|home|root|Users)/[\w.-]+")
    allowed = {"static/lib"}
    for path in tracked():
        name = path.relative_to(ROOT).as_posix()
        if (
            path.suffix in {".npz", ".png", ".woff"}
            or any(name.startswith(a) for a in allowed)
            or path == Path(__file__).resolve()
        ):
            continue
        found = private.search(path.read_text(encoding="utf-8"))
        assert not found, f"{name}: {found.group()}"


def test_the_checkout_stays_small():
    assert sum(p.stat().st_size for p in tracked()) < 60e6


# --- automation


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
