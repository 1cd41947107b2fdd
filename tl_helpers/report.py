"""What pages show of the records: tables, numbers for prose (glue), claims of the documents."""

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from tl_helpers import results, runtime
from tl_helpers.wording import HEADINGS, Link, Table, decimal, heading, is_share, show  # noqa: F401  (pages take them from here)

CLAIMS = "claims.yml"
_glued: dict[str, str] = {}  # what this process has glued


def recorded(experiment: str, folder: Path | None = None) -> tuple[str | None, list[dict]]:
    """The records a page shows: those at ``full``, else ``laptop``, else ``quick``; with that scale's name."""
    for scale in reversed(runtime.SCALES):
        found = results.load(experiment, scale=scale, folder=folder)
        if found:
            return scale, found
    return None, []


def this_run(experiment: str) -> list[dict]:
    """The newest record of each arm, pair and seed that this process finished."""
    newest = {(r["arm"], r["pair"], r["seed"]): r for r in results.finished if r["experiment"] == experiment}
    return list(newest.values())


def shown(experiment: str) -> list[dict]:
    """What a page shows of an experiment: its records, else this run's, else nothing."""
    return recorded(experiment)[1] or this_run(experiment)


def values(records: Sequence[dict], metric: str) -> dict[tuple[str | None, str], list[float]]:
    """(pair, arm) to one number a seed, in the order of the seeds; arms without the metric are left out."""
    found = {}
    for record in sorted(records, key=lambda r: r["seed"]):
        number = record["metrics"].get(metric)
        if isinstance(number, (int, float)):
            found.setdefault((record["pair"], record["arm"]), []).append(float(number))
    order = list(dict.fromkeys((r["pair"], r["arm"]) for r in records))
    return {key: found[key] for key in order if key in found}


def whole_seeds(records: Sequence[dict]) -> list[dict]:
    """Only those seeds which every arm and pair here has, so that arms can be compared seed by seed.

    A recording that was interrupted leaves the last seeds with some arms only.
    """
    seeds = {}
    for record in records:
        seeds.setdefault((record["pair"], record["arm"]), set()).add(record["seed"])
    common = set.intersection(*seeds.values()) if seeds else set()
    return [record for record in records if record["seed"] in common]


def by_pair(
    experiment: str, metric: str = "test_accuracy", fresh: bool = False
) -> dict[str | None, dict[str, list[float]]]:
    """Pair to arm to one number a seed, of what is `shown` or, with ``fresh``, of this run.

    Only those seeds in which all arms of a pair have the metric, so that differences are taken within seeds.
    """
    records, found = this_run(experiment) if fresh else shown(experiment), {}
    measured = [record for record in records if record["metrics"].get(metric) is not None]
    for pair in dict.fromkeys(record["pair"] for record in measured):
        own = whole_seeds([record for record in measured if record["pair"] == pair])
        found[pair] = {arm: numbers for (_, arm), numbers in values(own, metric).items()}
    return found


def arms(
    experiment: str, metric: str = "test_accuracy", pair: str | None = None, fresh: bool = False
) -> dict[str, list[float]]:
    """Arm to one number a seed, for plots: from the records, or from this run where they hold none or with ``fresh``.

    Arms may have different seeds: for differences take ``by_pair``.

    Raises:
        ValueError: an arm was run under several pairs, and ``pair`` names none.
    """
    records = this_run(experiment) if fresh else recorded(experiment)[1]
    pairs = {}
    for of, arm in values(records, metric) if pair is None else ():
        pairs.setdefault(arm, []).append(of)
    if several := {arm: named for arm, named in pairs.items() if len(named) > 1}:
        raise ValueError(f"pair must name one of those of {experiment}. Received: None; there are {several}")
    found = {arm: numbers for (p, arm), numbers in values(records, metric).items() if pair is None or p == pair}
    return found if found or fresh else arms(experiment, metric, pair, fresh=True)


def table(experiment: str, metrics: Sequence[str] = ("test_accuracy",), pair: str = "setting") -> Table:
    """Recorded results, then this run's: one row an arm, mean ± standard deviation over the seeds.

    Where all pairs are numbers (learning rates, say) an arm's rows stand together, in the order of the numbers.

    Args:
        experiment: its name.
        metrics: names of metrics.
        pair: heading of the column which tells the records' pairs, where there are any.
    Returns:
        A table that shows itself; the caption says data and hardware of the records. A column without a number is left
        out.
    """
    scale, kept = recorded(experiment)
    fresh = this_run(experiment)
    keys = list(dict.fromkeys((r["pair"], r["arm"]) for r in [*kept, *fresh]))
    columns, shown_pairs = [], [value or "–" for value, _ in keys]
    if keys and all(_is_number(value) for value, _ in keys):
        order = list(dict.fromkeys(arm for _, arm in keys))
        keys.sort(key=lambda key: (order.index(key[1]), float(key[0])))
        shown_pairs = [decimal(value) for value, _ in keys]
    columns.append(["arm", *(arm for _, arm in keys)])
    if any(value is not None for value, _ in keys):
        columns.append([pair, *shown_pairs])
    for source, records in ((f"recorded ({scale}", kept), (f"this run ({runtime.scale()}", fresh)):
        columns += [column for metric in metrics if (column := _column(metric, source, records, keys))]
    spread = (
        " ± is the standard deviation over the seeds." if any("±" in c for column in columns for c in column) else ""
    )
    return Table(
        [column[0] for column in columns],
        list(zip(*(column[1:] for column in columns))),
        _about(experiment, kept) + spread,
    )


def _column(metric: str, source: str, records: list[dict], keys: list[tuple]) -> list[str]:
    """Heading and cells of one metric, or nothing; where all have as many seeds, the heading tells how many."""
    found = values(records, metric)
    counts = {len(numbers) for numbers in found.values()}
    if not counts:
        return []
    cells = [show(found[key], metric) if key in found else "–" for key in keys]
    if len(counts) == 1:
        n = counts.pop()
        source += ", 1 run" if n == 1 else f", {n} seeds"
        cells = [cell.partition(" (")[0] for cell in cells]
    return [f"{heading(metric)}: {source})", *cells]


def _is_number(text: str | None) -> bool:
    return bool(re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", text or ""))


def _about(experiment: str, kept: list[dict]) -> str:
    if not kept:
        return f"Experiment {experiment}, not recorded yet at any scale: only this run is shown."
    data = {f"{r['data']['name']} ({r['data']['copy']} copy)" for r in kept if r["data"]}
    weights = {r["weights"]["name"] for r in kept if r["weights"]}
    on = {f"{r['device']['name']}, {r['device']['cores']} cores" for r in kept}
    began = f"; weights: {', '.join(sorted(weights))}" if weights else ""
    return f"Experiment {experiment}, recorded on {', '.join(sorted(data)) or 'generated data'}{began}; {', '.join(sorted(on))}."


def missing(experiment: str, plan: dict[str, Sequence[int]], arms: Sequence[str]) -> str:
    """How far the recording of a plan at ``full`` has come, for a page that is shown before it ends.

    Args:
        experiment: its name.
        plan: pair to the seeds that are planned.
        arms: those that a seed must have to count.
    Returns:
        For example ``10 a class, 30 a class (3 of 3 seeds); 100 a class (1 of 3 seeds); not yet: 300 a class``; empty
        once nothing is missing.
    """
    have = {(r["pair"], r["arm"], r["seed"]) for r in results.load(experiment, scale="full")}
    come: dict[tuple[int, int], list[str]] = {}
    for pair, seeds in plan.items():
        done = sum(all((pair, arm, seed) in have for arm in arms) for seed in seeds)
        come.setdefault((done, len(seeds)), []).append(pair)
    if all(done == planned for done, planned in come):
        return ""
    told = [f"{', '.join(pairs)} ({done} of {planned} seeds)" for (done, planned), pairs in come.items() if done]
    left = [pair for (done, _), pairs in come.items() if not done for pair in pairs]
    return "; ".join([*(told or ["nothing"]), *([f"not yet: {', '.join(left)}"] if left else [])])


class Lead(NamedTuple):
    """By how many points an arm is ahead of a rival in test accuracy, one number a seed; as text, with the range."""

    arm: str
    points: np.ndarray

    def __str__(self) -> str:
        if not len(self.points):
            return "not recorded yet"
        ends = f" ({self.points.min():+.1f} to {self.points.max():+.1f}, {len(self.points)} seeds)"
        return f"{self.points.mean():+.1f} points{ends if len(self.points) > 1 else ' (1 run)'}"


def lead(experiment: str, arms: Sequence[str], rival: str, pair: str | None = None) -> Lead:
    """The lead of that one of some arms which is best on validation, over a rival, within seeds that all of these have."""
    asked = [r for r in shown(experiment) if r["pair"] == pair and r["arm"] in (*arms, rival)]
    val, test = (values(whole_seeds(asked), metric) for metric in ("val_accuracy", "test_accuracy"))
    if not all((pair, arm) in test for arm in (*arms, rival)):
        return Lead("", np.array([]))
    best = max(arms, key=lambda arm: np.mean(val[pair, arm]))
    return Lead(best, 100 * np.subtract(test[pair, best], test[pair, rival]))


def origin(of: str | Sequence[dict]) -> str:
    """Data and scale of an experiment `shown`, or of records of one kind, for a title: ``cifar10, full scale``."""
    records = shown(of) if isinstance(of, str) else of
    if not records:
        return "not recorded yet"
    data = records[0]["data"]
    return (f"{data['name']}, " if data else "") + f"{records[0]['scale']} scale"


def spent(*experiments: str) -> str:
    """How long the recorded runs at ``full`` took, by machine: ``34 min (AMD EPYC, 2 cores)``."""
    seconds: dict[str, float] = {}
    for record in (r for name in experiments for r in results.load(name, scale="full")):
        machine = f"{record['device']['name']}, {record['device']['cores']} cores"
        seconds[machine] = seconds.get(machine, 0) + record["seconds"]
    return "; ".join(f"{runtime.duration(s / 60)} ({machine})" for machine, s in seconds.items()) or "no time yet"


def glue(experiment: str, metric: str = "test_accuracy", fresh: bool = False) -> dict[str, str]:
    """Glue one text an arm, for prose: key ``EXPERIMENT/ARM/METRIC``, or ``EXPERIMENT/PAIR/ARM/METRIC`` with pairs.

    Args:
        experiment: its name.
        metric: which metric.
        fresh: this run's numbers instead of the recorded ones; keys end in ``/this-run``.
    Returns:
        The glued texts by key.
    """
    scale, records = (runtime.scale(), this_run(experiment)) if fresh else recorded(experiment)
    texts = {}
    for (pair, arm), numbers in values(records, metric).items():
        key = "/".join(p for p in (experiment, pair, arm, metric, "this-run" if fresh else None) if p)
        text = show(numbers, metric)
        texts[key] = text if fresh or scale == "full" else f"{text}, recorded at {scale} scale"
    for key, text in texts.items():
        glue_text(key, text)
    return texts


def glue_text(key: str, text: str) -> str:
    """Glue a computed text under a key, where MyST-NB is there to read it; the text itself."""
    try:
        from myst_nb import glue as put
    except ImportError:  # Colab, a plain JupyterLab: the tables above the prose show the same numbers
        return text
    if _glued.get(key) != text:  # a key glued twice on one page is a warning, which stops a strict build
        put(key, str(text), display=False)
        _glued[key] = text
    return text


@functools.cache
def claims() -> dict[str, dict]:
    """What the documents claim, by key: ``document``, ``text`` and ``value``."""
    return yaml.safe_load((runtime.records_folder() / CLAIMS).read_text(encoding="utf-8"))


def claim(key: str) -> str:
    """One claim's value as text, glued as ``claims/KEY``.

    Raises:
        KeyError: there is no such claim; the message lists those there are.
    """
    if key not in claims():
        raise KeyError(f"no claim {key!r}. There are: {', '.join(claims())}")
    return glue_text(f"claims/{key}", str(claims()[key]["value"]))
