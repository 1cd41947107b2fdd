"""Bands: where each recorded number is expected to lie; a record or a run outside its band is a fault."""

from pathlib import Path

import numpy as np
import yaml

from tl_helpers import report, results, runtime

FILE = "bands.yml"
# What a busy machine changes has no band: metrics with one of these whole words, and ratios computed from times.
UNBANDED = ("seconds", "milliseconds", "per_second", "memory", "ci95")
TIMED_RATIOS = {
    "time_ratio",
    "time_over_vgg16_ratio",
    "kept_over_one_pass_ratio",
    "program_over_kept_ratio",
    "work_ratio",
    "over_relu_ratio",
}


def load(folder: Path | None = None) -> list[dict]:
    """All bands: dicts of experiment, scale, pair, arm, metric, expected, half_width."""
    path = (folder or runtime.records_folder()) / FILE
    if not path.exists():
        return []
    kept = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return [{"experiment": experiment, **row} for experiment, rows in kept.items() for row in rows or []]


def propose(experiment: str) -> list[dict]:
    """Bands from the records: their mean, and a half-width by rule.

    Shares (``report.is_share``): at ``full`` three standard deviations or 0.02, whichever is larger; at ``laptop``
    0.03, at ``quick`` 0.10.
    Other metrics may stray by a part of their size as well: 2 % at ``full``, 10 % at ``laptop``, half at ``quick``;
    at ``full`` also as far as the farthest seed.
    Short trainings of few images end elsewhere where a processor rounds otherwise. So at the smaller scales, what was
    recorded on several machines is expected midway between the lowest and the highest of them.
    """
    rows = []
    for scale in runtime.SCALES:
        records = results.load(experiment, scale=scale)
        machines = [records] if scale == "full" else _by_machine(records, experiment, scale)
        for metric in dict.fromkeys(name for r in records for name in r["metrics"] if _banded(name)):
            on_each = [report.values(found, metric) for found in machines]
            for (pair, arm), numbers in report.values(records, metric).items():
                means = [np.mean(found[pair, arm]) for found in on_each if (pair, arm) in found]
                mean = float(min(means) + max(means)) / 2
                rows.append(
                    {
                        "scale": scale,
                        "pair": pair,
                        "arm": arm,
                        "metric": metric,
                        "expected": round(mean, 6),
                        "half_width": round(_half_width(numbers, metric, scale), 6),
                    }
                )
    return rows


def write(experiments: list[str]) -> None:
    """Write the proposed bands of these experiments into the package's ``bands.yml``; the others stay."""
    path = runtime.records_folder() / FILE
    kept = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.exists() else {}
    kept |= {experiment: propose(experiment) for experiment in experiments}
    kept = {experiment: rows for experiment, rows in kept.items() if rows}  # nothing but times needs no band
    lines = [
        "# Where each recorded number is expected to lie: expected ± half_width. `python -m tl_helpers bands` writes them.\n"
    ]
    for experiment in sorted(kept):
        lines.append(f"{experiment}:\n")
        lines += [
            "  - " + yaml.safe_dump(row, default_flow_style=True, sort_keys=False, width=1000)
            for row in kept[experiment]
        ]
    path.write_text("".join(lines), encoding="utf-8")


def check(folder: Path | None = None) -> list[str]:
    """Compare the newest records of a folder (default: the package's) with the bands.

    Runs in a folder that began from downloaded weights and have no band are passed over: a page may find more networks
    here than where its records were made.

    Returns:
        One sentence a problem: a number outside its band, a number without a band, or a band of an experiment and scale
        found here whose arm has no run here (arms that began from downloaded weights may be missing). Empty when all is well.
    """
    known = {(b["experiment"], b["scale"], b["pair"], b["arm"], b["metric"]): b for b in load()}
    problems = []
    for experiment in results.experiments(folder):
        for scale in runtime.SCALES:
            records = results.load(experiment, scale=scale, folder=folder)
            if folder is not None:
                records = [r for r in records if not _only_here(r, known)]
            for metric in dict.fromkeys(name for r in records for name in r["metrics"] if _banded(name)):
                for (pair, arm), numbers in report.values(records, metric).items():
                    key = (experiment, scale, pair, arm, metric)
                    # small scales have few images, so that single seeds stray widely: their mean is judged
                    judged = numbers if scale == "full" else [float(np.mean(numbers))]
                    problems += [problem for value in judged for problem in _judge(known.get(key), key, value)]
            problems += _missing(experiment, scale, records, known)
    return problems


def check_weights() -> list[str]:
    """Records whose embedded weights are no longer the shipped ones: they must be made again."""
    from tl_helpers import packing  # imports the deep-learning framework, which bands alone do not need
    from tl_helpers.weight_files import EMBEDDED

    shipped = packing.sums(EMBEDDED.parent)[EMBEDDED.name]
    problems = []
    for experiment in results.experiments():
        for record in results.load(experiment):
            weights = record["weights"]
            if weights and weights["name"] == "tiny-imagenet" and weights["sha256"] != shipped:
                problems.append(
                    f"{experiment} / {record['arm']} / seed {record['seed']} ({record['scale']}): made with older weights; "
                    "record it again"
                )
    return problems


def _by_machine(newest: list[dict], experiment: str, scale: str) -> list[list[dict]]:
    """Records of one setting, machine by machine; those of another recipe or data than the newest ones are left out."""
    same = ("recipe", "data", "split", "weights")
    mine = {(r["arm"], r["pair"], r["seed"]): [r.get(name) for name in same] for r in newest}
    found = {}
    for record in results.load(experiment, scale=scale, each_machine=True):
        if mine[record["arm"], record["pair"], record["seed"]] == [record.get(name) for name in same]:
            found.setdefault((record.get("device") or {}).get("name"), []).append(record)
    return list(found.values())


def _only_here(record: dict, known: dict) -> bool:
    """Whether a run needed weights that its records were made without."""
    of = tuple(record[name] for name in ("experiment", "scale", "pair", "arm"))
    weights = record.get("weights")
    downloaded = bool(weights) and weights["name"] == "imagenet"
    return downloaded and not any(key[:4] == of for key in known)


def _missing(experiment: str, scale: str, records: list[dict], known: dict) -> list[str]:
    """Arms with a band, of an experiment and scale that has runs, which have no run."""
    found = {(r["pair"], r["arm"]) for r in records}
    of_records = results.load(experiment, scale=scale)
    spared = {(r["pair"], r["arm"]) for r in of_records if (r.get("weights") or {}).get("name") == "imagenet"}
    banded = dict.fromkeys(key[2:4] for key in known if key[:2] == (experiment, scale))
    gone = [of for of in banded if of not in found | spared] if records else []
    return [" / ".join(filter(None, (experiment, scale, *of))) + ": a band, but no run" for of in gone]


def _judge(band: dict | None, key: tuple, value: float) -> list[str]:
    name = " / ".join(str(part) for part in key if part is not None)
    if band is None:
        return [f"{name}: no band. Record it, then write the bands"]
    if abs(value - band["expected"]) <= band["half_width"] + 1e-9:
        return []
    return [f"{name}: {value:.4g} is outside {band['expected']:.4g} ± {band['half_width']:.4g}"]


def _banded(metric: str) -> bool:
    return metric not in TIMED_RATIOS and not any(f"_{words}_" in f"_{metric}_" for words in UNBANDED)


def _half_width(numbers: list[float], metric: str, scale: str) -> float:
    size = 0.0 if report.is_share(metric) else abs(float(np.mean(numbers)))
    if scale == "quick":
        return max(0.10, 0.5 * size)
    if scale == "laptop":
        return max(0.03, 0.1 * size)
    spread = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else 0.0
    if report.is_share(metric):
        return max(3 * spread, 0.02)
    # Numbers without an upper end stray widely: of many seeds one may lie beyond three standard deviations.
    farthest = float(np.abs(np.subtract(numbers, np.mean(numbers))).max()) + 1e-6  # since bands are rounded
    return max(3 * spread, farthest, 0.02, 0.02 * size)
