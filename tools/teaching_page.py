"""The tables of book/teaching.md, made from the chapters' own openings; tools/sync.py writes them."""

import json
import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Reading times as the chapters state them, besides "40 minutes" and the like.
MINUTES = {
    "half an hour": 30,
    "forty minutes": 40,
    "three quarters of an hour": 45,
    "an hour": 60,
    "an hour and a half": 90,
}
# One term: a week's chapters, and what to do together.
WEEKS = [
    (["what-is-transfer-learning", "network-by-hand"], "predictions on the board; the gradient check"),
    (["map-of-the-field", "losses-and-risk"], "place ten methods on the map; derive the gradient"),
    (["when-it-helps", "convolution-and-vgg16"], "order the sources, then run; count VGG16's weights"),
    (["how-transferable", "descending"], "what difference would count?; choose a learning rate"),
    (["training-strategies", "transfer-formally"], "write an adapter; the proof of the bound"),
    (["documents-program", "kept-features"], "find the three faults before the page does"),
    (["fine-tuning", "preprocessing", "resolution"], "one fault each group; projects begin"),
    (["unfreezing", "what-transfer-buys"], "draw the curve first; plan the projects' comparisons"),
    (["how-good", "backbones"], "an interval for every project; equal compute"),
    (["own-pictures", "source-model", "best-recipe"], "projects are shown, with their records"),
]
DAY = [
    ("09:00", "what-is-transfer-learning", "everybody writes a number down, then runs"),
    ("10:45", "documents-program", "find the faults; why the printed number cannot be confirmed"),
    ("13:00", "kept-features", "the same features, computed once; which block is best?"),
    ("14:00", "fine-tuning", "which weights move, and how far"),
    ("15:15", "own-pictures", "a folder of one's own becomes a model"),
]
# Exercises whose answer is more than a number that the solution prints.
GRADED = [
    ("what-is-transfer-learning", "3. When the target is easy", "a small experiment, paired, with a prediction"),
    ("when-it-helps", "3. A rival out of form", "find what is unfair in a comparison"),
    ("network-by-hand", "Any depth", "code that checks itself by finite differences"),
    ("losses-and-risk", "Derive the stable binary loss", "a derivation on paper"),
    ("transfer-formally", "No rule serves both", "what a bound promises, and what not"),
    ("kept-features", "Another head, for free", "one change, same features, same seeds"),
    ("fine-tuning", "How far did it go?", "measure what a learning rate does"),
    ("what-transfer-buys", "Why pairs?", "why differences are taken within a seed"),
    ("how-good", "An interval for F1", "an uncertainty that no formula gives"),
    ("own-pictures", "Repair the flip", "a failure understood well enough to repair"),
]


def chapters() -> dict[str, list[str]]:
    """The parts of the contents that hold chapters: caption to files, such as ``book/math/descending``."""
    parts = re.split(r"^  - caption: ", (ROOT / "_toc.yml").read_text(encoding="utf-8"), flags=re.M)[1:]
    listed = {part.splitlines()[0]: re.findall(r"- file: (\S+)", part) for part in parts}
    return {caption: files for caption, files in listed.items() if caption not in ("Start", "Reference")}


def opening(file: str) -> dict[str, str]:
    """What a chapter says of itself in its first cell: title, question, outcomes, needs, minutes; and its exercises.

    Raises:
        ValueError: a part is missing, or the time is stated in words that ``MINUTES`` does not know.
    """
    cells = json.loads((ROOT / f"{file}.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "".join(cells[0]["source"])
    flat = re.sub(r"\n(?:- |  )?(?!\n)", "\n", text).replace("\n\n", "\0").replace("\n", " ").replace("\0", "\n")
    found = {
        "title": re.search(r"^# (.+?)$", flat, re.M),
        "question": re.search(r"^(?:\*\*The question:\*\* (.+)|\*(?!\*)(.+)\*)$", flat, re.M),
        "outcomes": re.search(r"\*\*You will(?: be able to)?\*\* (.+?)\.(?= |$)", flat, re.M),
        "needs": re.search(r"\*\*You need\*\* (.+?)\.? \*\*(?:It takes|Time)", flat),
        "time": re.search(r"\*\*(?:It takes|Time:)\*\* (?:about )?(.+?) of reading", flat),
    }
    if missing := [name for name, hit in found.items() if not hit]:
        raise ValueError(f"{file} must open with title, question, outcomes, needs and time. Missing: {missing}")
    said = {name: next(filter(None, hit.groups())).strip() for name, hit in found.items()}
    counted = re.fullmatch(r"(\d+) minutes", said["time"])
    if not counted and said["time"] not in MINUTES:
        known = ", ".join(MINUTES)
        raise ValueError(f"{file}: a time must be 'N minutes' or one of {known}. Received: {said['time']!r}")
    prose = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    exercises = dict(hit[::-1] for hit in re.findall(r"\*\*(★+) (.+?)[.]?\*\*", prose))
    moved = {name: _from_book(value, file) for name, value in said.items()}
    minutes = int(counted.group(1)) if counted else MINUTES[said["time"]]
    return moved | {"minutes": minutes, "exercises": exercises}


def _from_book(text: str, file: str) -> str:
    """Text with its links as they are from the folder book, fit for a table's cell."""
    folder = posixpath.dirname(file.removeprefix("book/"))
    moved = re.sub(
        r"\]\(([^):]+)\)", lambda hit: f"]({posixpath.normpath(posixpath.join(folder, hit.group(1)))})", text
    )
    return moved.replace("|", "\\|")


def duration(minutes: int) -> str:
    """A time as a table shows it: ``40 min``, ``1 h 30``."""
    hours, rest = divmod(minutes, 60)
    return f"{rest} min" if not hours else f"{hours} h" + (f" {rest:02d}" if rest else "")


def tables() -> dict[str, str]:
    """The page's generated parts by name."""
    files = {file.split("/")[-1]: file for listed in chapters().values() for file in listed}
    said = {slug: opening(file) for slug, file in files.items()}
    link = lambda slug: f"[{said[slug]['title']}]({files[slug].removeprefix('book/')}.ipynb)"  # noqa: E731
    return {
        "chapters": "\n".join(
            _part(caption, [file.split("/")[-1] for file in listed], said, link)
            for caption, listed in chapters().items()
        ),
        "ten weeks": _rows(
            "| week | chapters | reading | together |",
            (
                [i, "; ".join(map(link, week)), duration(sum(said[slug]["minutes"] for slug in week)), what]
                for i, (week, what) in enumerate(WEEKS, 1)
            ),
        ),
        "one day": _rows(
            "| from | chapter | reading | together |",
            ([at, link(slug), duration(said[slug]["minutes"]), what] for at, slug, what in DAY),
        ),
        "exercises": _rows(
            "| chapter | exercise | what it shows |",
            (
                [link(slug), f"{said[slug]['exercises'][name]} {re.sub('^[0-9][.] ', '', name)}", why]
                for slug, name, why in GRADED
            ),
        ),
    }


def _part(caption: str, slugs: list[str], said: dict, link) -> str:
    total = duration(sum(said[slug]["minutes"] for slug in slugs))
    rows = (
        [
            f"**{link(slug)}** {said[slug]['question'][0].upper()}{said[slug]['question'][1:]}",
            said[slug]["outcomes"],
            duration(said[slug]["minutes"]),
            said[slug]["needs"],
        ]
        for slug in slugs
    )
    heads = "| chapter and question | afterwards students can | reading | needs |"
    return f"### {caption}: {len(slugs)} chapters, {total} of reading\n\n{_rows(heads, rows)}"


def _rows(heads: str, rows) -> str:
    line = "|---" * (heads.count("|") - 1) + "|"
    return "\n".join([heads, line, *("| " + " | ".join(map(str, row)) + " |" for row in rows)]) + "\n"


def with_tables(text: str) -> str:
    """The page with its tables as the chapters have them now.

    Raises:
        ValueError: a table has no place in the text.
    """
    for name, table in tables().items():
        begin, end = f"<!-- {name}: written by tools/sync.py -->\n", f"<!-- end of {name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"the page must hold {begin!r} and {end!r}, once each. Put them back")
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{table}\n{end}{rest.split(end)[1]}"
    return text
