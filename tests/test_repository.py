"""The repository as a whole: one address, one import direction, one lock."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import api_page
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
        "record_files",
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
