"""``python -m tl_helpers``: fetch data, record and reproduce experiments, check bands, use a model of your own."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tl_helpers import datasets, model_commands, notebook_runs, results, runtime
from tl_helpers.downloads import DataRefused, DataUnavailable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0 when all went well, 1 when something failed, 2 for a wrong call."""
    chosen = _parser().parse_args(arguments)
    try:
        code = chosen.run(chosen)
        sys.stdout.flush()  # here, so that a reader who is gone is met below and not at Python's end
        return code
    except BrokenPipeError:  # whoever read the output (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        return 1
    except (DataUnavailable, DataRefused, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted; {chosen.again}", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tl_helpers", description=__doc__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run, text: str, again: str = "run the same command again to go on", more: str = ""):
        added = commands.add_parser(name, help=text, description=text + more)
        added.set_defaults(run=run, again=again)
        return added

    fetch = command("fetch", _fetch, "download all data and weights beforehand (or only those named)")
    fetch.add_argument(
        "names", nargs="*", metavar="NAME", help=f"a data set ({', '.join(datasets.names())}) or a backbone (vgg16 …)"
    )
    record = command("record", _record, "run a notebook and append its runs to the package's records")
    record.add_argument("notebook", type=Path)
    again = command(
        "reproduce", _reproduce, "run an experiment's notebook again and compare with its bands; records nothing"
    )
    again.add_argument("experiment")
    again.add_argument("--notebook", type=Path, help="where the experiment is made (default: searched for under book/)")
    for added in (record, again):
        added.add_argument("--scale", choices=runtime.SCALES, help="default: TL_SCALE, else quick")
    bands = command("bands", _bands, "write bands.yml anew from the records")
    bands.add_argument(
        "experiments", nargs="*", metavar="EXPERIMENT", help="only these (default: all that have records)"
    )
    check = command(
        "check-bands", _check_bands, "fail when a record lies outside its band or was made with older weights"
    )
    check.add_argument(
        "--folder", type=Path, help="check the runs noted in this folder, at least one (default: the package's records)"
    )
    predict = command(
        "predict",
        model_commands.predict,
        "say which of its classes a saved model sees in pictures",
        "what is printed above is whole; the same command begins with the first picture again",
        ". The percentages are the model's own stated confidence. It knows its classes alone: whatever else a picture "
        "shows, it names one of them",
    )
    predict.add_argument("model", type=Path, metavar="MODEL", help="a .keras file written by predictor.save")
    predict.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE", help="picture files (PNG, JPEG, WebP …)")
    predict.add_argument("--top", type=int, default=3, metavar="K", help="how many classes to show (default: 3)")
    predict.add_argument("--json", action="store_true", help="one JSON object a picture, one a line")
    serve = command("serve", model_commands.serve, "show a page, on this computer alone, to drop pictures on")
    serve.add_argument("model", type=Path, metavar="MODEL", help="a .keras file written by predictor.save")
    serve.add_argument("--port", type=int, default=8765, help="default: 8765; 0 takes any free one")
    return parser


def _fetch(chosen: argparse.Namespace) -> int:
    """Fetch what was asked for; one that fails does not keep the others from being fetched."""
    jobs = _jobs(chosen.names)
    print(f"data and weights go to {runtime.cache_folder()}; TL_DATA: {runtime.data_folder() or 'not set'}")
    failed = []
    for name, job in jobs.items():
        try:
            print(f"{name}: ready ({job()})", flush=True)
        except (DataUnavailable, DataRefused) as error:
            failed.append(name)
            print(f"{name}: failed. {error}\n", file=sys.stderr)
    if failed:
        print(f"not fetched: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _jobs(names: Sequence[str]) -> dict:
    """Name to a function that fetches it and says what it got."""
    jobs = {name: lambda name=name: f"{datasets.spec(name).files.read().copy} copy" for name in datasets.names()}
    if names and set(names) <= set(jobs):
        return {name: jobs[name] for name in names}
    with model_commands.native_notes_hidden():
        from tl_helpers import backbones  # imports the deep-learning framework: only when weights are wanted

    for name in backbones.names():
        for weights, about in backbones.spec(name).weights.items():
            if about.url:
                jobs[f"{name} {weights}"] = lambda name=name, weights=weights: (
                    backbones.build(name, weights=weights) and "weights load"
                )
    unknown = [name for name in names if not any(name == job.split(" ")[0] for job in jobs)]
    if unknown:
        known = ", ".join(dict.fromkeys(job.split(" ")[0] for job in jobs))
        raise ValueError(f"names must be among {known}. Received: {', '.join(unknown)}")
    return {job: run for job, run in jobs.items() if not names or job.split(" ")[0] in names}


def _record(chosen: argparse.Namespace) -> int:
    scale = chosen.scale or runtime.scale()
    before = _lines(runtime.records_folder())
    seconds = notebook_runs.execute(chosen.notebook, {"TL_RECORD": "1", "TL_SCALE": scale})
    after = _lines(runtime.records_folder())
    added = {name: count - before.get(name, 0) for name, count in after.items() if count > before.get(name, 0)}
    for name, count in added.items():
        print(f"{name}: {count} runs recorded at {scale}")
    print(f"{chosen.notebook} took {seconds:.0f} s")
    if not added:
        print("the notebook finished no run", file=sys.stderr)
    return 0 if added else 1


def _lines(folder: Path) -> dict[str, int]:
    return {path.stem: len(results.lines(path)) for path in sorted(folder.glob("*.jsonl"))}


def _reproduce(chosen: argparse.Namespace) -> int:
    from tl_helpers import bands

    name, scale = chosen.experiment, chosen.scale or runtime.scale()
    notebook = chosen.notebook or notebook_runs.find_notebook(name, notebook_runs.book_folder())
    folder = runtime.scratch_folder() / "reproduced" / f"{name}-{scale}-{time.strftime('%Y%m%d-%H%M%S')}"
    print(f"{name}: running {notebook} at {scale}; its runs go to {folder}", flush=True)
    seconds = notebook_runs.execute(notebook, {"TL_RECORD": "", "TL_SCALE": scale, "TL_SCRATCH": str(folder)})
    runs = results.load(name, folder=folder)
    if not runs:
        print(f"{notebook} finished no run of {name}", file=sys.stderr)
        return 1
    problems = [problem for problem in bands.check(folder) if problem.split(" / ")[0] == name]
    for problem in problems:
        print(f"  {problem}")
    verdict = "outside its band or without one" if problems else "inside its band"
    print(f"{name}: {len(runs)} runs at {scale} in {seconds:.0f} s, {verdict}")
    return 1 if problems else 0


def _bands(chosen: argparse.Namespace) -> int:
    from tl_helpers import bands

    known = results.experiments()
    unknown = set(chosen.experiments) - set(known)
    if unknown:
        raise ValueError(
            f"experiments must have records ({', '.join(known) or 'none has any yet'}). "
            f"Received: {', '.join(sorted(unknown))}"
        )
    wanted = chosen.experiments or known
    bands.write(wanted)
    print(f"wrote the bands of {', '.join(wanted) or 'no experiment'}")
    return 0


def _check_bands(chosen: argparse.Namespace) -> int:
    from tl_helpers import bands

    found = [name for name in results.experiments(chosen.folder) if results.load(name, folder=chosen.folder)]
    if chosen.folder and not found:
        there = "holds no run" if chosen.folder.is_dir() else "is no folder"
        print(
            f"--folder must be where notebooks noted their runs (TL_SCRATCH). Received: {chosen.folder}, which {there}: "
            "nothing was checked. Run the notebooks first, without TL_RECORD",
            file=sys.stderr,
        )
        return 1
    problems = bands.check(chosen.folder)
    if not chosen.folder:
        with model_commands.native_notes_hidden():  # it imports the framework
            problems += bands.check_weights()
    for problem in problems:
        print(problem)
    print(f"{len(problems)} problems in the records of {len(found)} experiments")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
