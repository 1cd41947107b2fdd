"""Write book/reference/api.md: one section a module of tl_helpers, in the order in which they build on each other.

python tools/api_page.py
"""

import ast
import re
from pathlib import Path

import sync

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "book" / "reference" / "api.md"
HEAD = """\
# The helper package

`tl_helpers` is what the pages share. It is small on purpose: whatever is a lesson is built in the open on a page, and \
whatever would only distract is here. `import tl_helpers` loads no deep-learning framework.

Pixels are 0–255, RGB, shaped (N, height, width, 3). Labels are integers, shaped (N,). Accuracies are shares, 0–1.

## A start

```bash
pip install "tl-helpers[tensorflow] @ git+https://github.com/{slug}"
```

From a folder of pictures, with one folder in it for each class, to a model in a file:

```python
{start}```

`python -m tl_helpers predict album.keras new.jpg` then says what a new picture shows. \
{{doc}}`../vgg16-cifar10/own-pictures` goes through these steps with care, and on to fine-tuning. The weights come inside the package and \
stand under ImageNet's terms: non-commercial research and education only ({{doc}}`model-card`).

## Environment variables

| variable | what it decides |
|---|---|
{variables}
## Modules

**For you:** what pages and programs of your own call.

{for_you}
**Inside:** what these are built of.

{inside}"""
START = """\
from tl_helpers import backbones, evaluation, models, pictures, predictor, recipes, runtime, training

runtime.set_seed(0)  # before anything random is made
data, seen = pictures.load_folder("album")  # seen: what was left out, and why
backbone = models.freeze(backbones.vgg16())
model = models.transfer_model(backbone, len(data.class_names))
run = training.fit(model, data, recipes.HEAD, experiment="album", arm="frozen", seed=0)
print(evaluation.test(run, model, data))  # opens the test set, once
predictor.save(model, "album.keras", data.class_names)
"""
FOR_YOU = [
    "runtime",
    "datasets",
    "pictures",
    "backbones",
    "models",
    "features",
    "recipes",
    "training",
    "finetuning",
    "evaluation",
    "explain",
    "costs",
    "predictor",
    "serving",
    "results",
    "report",
    "bands",
    "plots",
]


def modules() -> list[str]:
    """Public modules: first those that a program calls, then the rest by name."""
    found = {p.stem for p in (ROOT / "tl_helpers").glob("*.py") if not p.stem.startswith("_")}
    return FOR_YOU + sorted(found - set(FOR_YOU))


def described(name: str) -> str:
    """A module's docstring."""
    return ast.get_docstring(ast.parse((ROOT / "tl_helpers" / f"{name}.py").read_text(encoding="utf-8"))) or ""


def table(names: list[str]) -> str:
    """One row a module: what it is for."""
    rows = "".join(f"| {{py:mod}}`~tl_helpers.{name}` | {described(name).splitlines()[0]} |\n" for name in names)
    return f"| module | purpose |\n|---|---|\n{rows}"


def variables() -> str:
    """One row an environment variable, from the docstring of the only module that reads them."""
    listed = described("runtime").split("Environment variables:\n")[1]
    return "".join(f"| `{name}` | {what} |\n" for name, what in re.findall(r"^    (\w+): (.+)$", listed, re.M))


def inner_classes() -> list[str]:
    """Classes that only plug into the framework (a layer, a callback): no part of what a page uses."""
    trees = [ast.parse((ROOT / "tl_helpers" / f"{name}.py").read_text(encoding="utf-8")) for name in modules()]
    classes = [node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]
    return sorted({c.name for c in classes if any(ast.unparse(base).startswith("keras.") for base in c.bases)})


def page() -> str:
    head = HEAD.format(
        slug=sync.slug(),
        start=START,
        variables=variables(),
        for_you=table(FOR_YOU),
        inside=table(modules()[len(FOR_YOU) :]),
    )
    parts = [head]
    for name in modules():
        block = f".. automodule:: tl_helpers.{name}\n   :members:\n   :exclude-members: {', '.join(inner_classes())}\n"
        parts.append(f"## {name}\n\n```{{eval-rst}}\n{block}```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
