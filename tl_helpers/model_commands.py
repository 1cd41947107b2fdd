"""The commands that use a model of your own: predict and serve."""

import argparse
import contextlib
import glob
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path


def predict(chosen: argparse.Namespace) -> int:
    """Every picture's likeliest classes, line by line; one that cannot be read does not keep the others from being read."""
    with native_notes_hidden():
        from tl_helpers import predictor

        found = predictor.load(chosen.model)
    pictures, refused = list(_expanded(chosen.pictures)), []
    answers = _answers(found, pictures, chosen.top, refused)
    for line in _json_lines(answers) if chosen.json else _table_lines(answers, pictures, found.class_names, chosen.top):
        print(line, flush=True)
    return 1 if refused else 0


def serve(chosen: argparse.Namespace) -> int:
    """A page on this computer alone that takes pictures, until Ctrl-C."""
    with native_notes_hidden():
        from tl_helpers import serving

    serving.serve(chosen.model, chosen.port)
    return 0


def _answers(found, pictures: Sequence[Path], top: int, refused: list[Path]) -> Iterator[tuple[Path, dict]]:
    """Each picture with what the model says of it, or with why it was refused, which goes to stderr as well."""
    from tqdm import tqdm

    from tl_helpers.picture_files import PictureRefused

    quiet = sys.stdout.isatty() or not sys.stderr.isatty()  # the lines themselves show how it goes; or nobody looks
    for picture in tqdm(pictures, unit="picture", leave=False, disable=quiet):
        try:
            answer = found.predict(picture, top)
        except PictureRefused as error:
            refused.append(picture)
            answer = {"error": str(error)}
            tqdm.write(f"{picture}: {error}", file=sys.stderr)
        yield picture, answer


def _json_lines(answers: Iterator[tuple[Path, dict]]) -> Iterator[str]:
    for picture, answer in answers:
        told = {"picture": str(picture), **answer}
        line = json.dumps(told, ensure_ascii=False)
        yield line if line == _printable(line) else json.dumps(told)


def _table_lines(answers, pictures: Sequence[Path], class_names: Sequence[str], top: int) -> Iterator[str]:
    """Rows under a heading, where there are any; what decides the columns' widths is known before the first answer."""
    places = min(max(1, top), len(class_names))
    heads = ["picture", "1. (stated confidence)", *(f"{place}." for place in range(2, places + 1))]
    widest = max(len(f"{name} 100.0%") for name in class_names)
    widths = [max(len(_printable(str(name))) for name in ["picture", *pictures])]
    widths += [max(widest, len(head)) for head in heads[1:]]
    rows = (
        [str(p), *(f"{guess['class']} {guess['probability']:.1%}" for guess in a["top"])]
        for p, a in answers
        if "top" in a
    )
    for number, cells in enumerate(rows):
        for line in [heads, cells] if number == 0 else [cells]:
            yield "  ".join(_printable(cell).ljust(width) for cell, width in zip(line, widths)).rstrip()


def _printable(text: str) -> str:
    """What the terminal's encoding does not have is written as ``\\xe9``."""
    coding = sys.stdout.encoding or "utf-8"
    return text.encode(coding, "backslashreplace").decode(coding)


def _expanded(given: Sequence[Path]) -> Iterator[Path]:
    """Pictures as named; a pattern that the shell left as it is (on Windows) is looked up here."""
    for picture in given:
        found = [] if picture.exists() else sorted(glob.glob(str(picture)))
        yield from (Path(name) for name in found or [picture])


@contextlib.contextmanager
def native_notes_hidden():
    """Keep what the framework's native code writes to stderr at its start off a reader's terminal; errors are raised."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
