"""Run a notebook of the book in this Python, and find the one that makes an experiment."""

import re
import sys
import time
from pathlib import Path

from tl_helpers import runtime


def book_folder() -> Path:
    """The checkout's ``book`` folder: beside the package, else in the current folder.

    Raises:
        FileNotFoundError: there is none.
    """
    for folder in (runtime.PACKAGE.parent / "book", Path.cwd() / "book"):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        "there is no folder 'book' beside the package or here; run this in a checkout, or give --notebook"
    )


def find_notebook(experiment: str, book: Path) -> Path:
    """The notebook whose code makes the runs of an experiment.

    Other chapters name it too, to show its records. Experiments are named after their own chapter, so a file name that
    begins the experiment's name decides; after that a notebook that hands the name to a run, then one that assigns it.

    Raises:
        FileNotFoundError: no notebook names the experiment, or several do so equally.
    """
    import json

    name = re.escape(experiment)
    makes = re.compile(rf"""(experiment\s*=|Run\()\s*["']{name}["']""")
    assigns = re.compile(rf"""\w\s*=\s*["']{name}["']""")
    ranked = {}
    for path in sorted(book.rglob("*.ipynb")):
        if any(part.startswith(".") for part in path.relative_to(book).parts):  # Jupyter's checkpoints
            continue
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        if re.search(rf"""["']{name}["']""", code):
            own = experiment == path.stem or experiment.startswith(f"{path.stem}-")
            ranked[path] = (own, bool(makes.search(code)), bool(assigns.search(code)))
    best = [path for path, rank in ranked.items() if rank == max(ranked.values())]
    if len(best) == 1:
        return best[0]
    told = f"several notebooks name it: {', '.join(map(str, best))}" if best else f"no notebook under {book} names it"
    raise FileNotFoundError(
        f"the notebook of experiment {experiment!r} is not clear: {told}. Say which with --notebook"
    )


def execute(notebook: Path, environment: dict[str, str]) -> float:
    """Run a notebook in this Python, in its own folder, with these environment variables; its file stays as it is.

    Returns:
        Wall seconds.
    Raises:
        FileNotFoundError: no such notebook, or nbclient or ipykernel is not installed.
        KeyboardInterrupt: the run was interrupted; the kernel is gone.
        ValueError: it is no notebook, or a cell failed; the message has the cell's error.
    """
    try:
        import ipykernel  # noqa: F401  (the kernel that is about to be started)
        import nbformat
        from jupyter_client.manager import AsyncKernelManager
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError, DeadKernelError
    except ImportError as error:
        raise FileNotFoundError(
            f"running notebooks needs nbclient and ipykernel ({error}). Install them: pip install nbclient ipykernel"
        ) from error
    from tqdm import tqdm

    if not notebook.is_file():
        raise FileNotFoundError(f"notebook must be a file. Received: {notebook}")
    try:
        book = nbformat.read(notebook, as_version=4)
    except nbformat.reader.NotJSONError as error:
        raise ValueError(f"{notebook} must be a Jupyter notebook. Received: a file that is no JSON") from error
    except (nbformat.ValidationError, AttributeError, TypeError) as error:  # JSON, but of something else
        told = str(error).partition("\n")[0]
        raise ValueError(f"{notebook} must be a Jupyter notebook. Received: other JSON ({told})") from error
    kernel = AsyncKernelManager(kernel_name="python3")
    # This Python, and this package even where it is not installed (appended, so an installed one comes first).
    here = f"import sys; sys.path.append({str(runtime.PACKAGE.parent)!r})"
    start = [sys.executable, *kernel.kernel_spec.argv[1:]]
    kernel.kernel_spec.argv = [*start, f"--IPKernelApp.exec_lines={here}", "--log-level=ERROR"]
    kernel.kernel_spec.env = {**kernel.kernel_spec.env, **environment}
    bar = tqdm(total=len(book.cells), desc=notebook.stem, unit="cell", file=sys.stderr, leave=False)
    client = NotebookClient(
        book,
        km=kernel,
        timeout=None,
        resources={"metadata": {"path": str(notebook.resolve().parent)}},
        on_cell_complete=lambda **_: bar.update(1),
    )
    began = time.monotonic()
    try:
        client.execute(cleanup_kc=True)  # a kernel handed in is not shut down otherwise
    except (CellExecutionError, DeadKernelError) as error:
        told = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # without the colours of IPython
        raise ValueError(f"{notebook} failed: {told}") from error
    except AssertionError as error:
        if client.km is None:  # nbclient took the interrupt, shut the kernel down and then missed it
            raise KeyboardInterrupt from error
        raise
    finally:
        bar.close()
    return time.monotonic() - began
