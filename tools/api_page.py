"""Write book/reference/api.md: one section a module of tl_helpers, in the order in which they build on each other.

python tools/api_page.py
"""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "book" / "reference" / "api.md"
HEAD = """\
# The helper package

`tl_helpers` is what the pages share. It is small on purpose: whatever is a lesson is built in the open on a page, and \
whatever would only distract is here. `import tl_helpers` loads no deep-learning framework.

Pixels are 0–255, RGB, shaped (N, height, width, 3). Labels are integers, shaped (N,). Accuracies are shares, 0–1.
"""
ORDER = [
    "runtime",
    "datasets",
    "backbones",
    "models",
    "features",
    "recipes",
    "training",
    "evaluation",
    "results",
    "report",
    "bands",
    "plots",
]


def modules() -> list[str]:
    """Public modules: first those a page uses, then the rest by name."""
    found = {p.stem for p in (ROOT / "tl_helpers").glob("*.py") if not p.stem.startswith("_")}
    return [name for name in ORDER if name in found] + sorted(found - set(ORDER))


def summary(name: str) -> str:
    tree = ast.parse((ROOT / "tl_helpers" / f"{name}.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").split("\n")[0]


def inner_classes() -> list[str]:
    """Classes that only plug into the framework (a layer, a callback): no part of what a page uses."""
    trees = [ast.parse((ROOT / "tl_helpers" / f"{name}.py").read_text(encoding="utf-8")) for name in modules()]
    classes = [node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]
    return sorted({c.name for c in classes if any(ast.unparse(base).startswith("keras.") for base in c.bases)})


def page() -> str:
    parts = [
        HEAD,
        "| module | purpose |\n|---|---|\n"
        + "".join(f"| {{py:mod}}`~tl_helpers.{n}` | {summary(n)} |\n" for n in modules()),
    ]
    for name in modules():
        block = f".. automodule:: tl_helpers.{name}\n   :members:\n   :exclude-members: {', '.join(inner_classes())}\n"
        parts.append(f"## {name}\n\n```{{eval-rst}}\n{block}```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
