"""Set up the project's own environment in .venv, or say at once that it is ready.

Standard library only: any Python 3.11-3.13 can run it. The stamp is written last, so an interrupted set-up is not taken
for a finished one; it carries a hash of the lock and of pyproject.toml, so that a change of either installs again.

    python tools/environment.py          set up
    python tools/environment.py --lock   rewrite requirements.txt with the newest versions that go together
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv"
STAMP = FOLDER / "tl-ready"
SUPPORTED = ((3, 11), (3, 13))
LOCK = ["pip", "compile", "--universal", "--python-version", "3.11", "--no-emit-index-url", "--no-header", "--upgrade"]
EXTRAS = ["--extra", "tensorflow", "--extra", "book", "--extra", "test"]


def python() -> Path:
    """The environment's own interpreter."""
    return FOLDER / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def fingerprint() -> str:
    """What the environment was made from: the lock, the project file and the Python version."""
    digest = hashlib.sha256(f"{sys.version_info[:2]} {ROOT}".encode())
    for name in ("requirements.txt", "pyproject.toml"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def fits() -> bool:
    """Whether the interpreter in .venv has the version of the Python that runs this; `venv` keeps one that lies there."""
    about = FOLDER / "pyvenv.cfg"
    found = re.search(r"^version(?:_info)? *= *(\d+)\.(\d+)", about.read_text(), re.M) if about.exists() else None
    return bool(found) and tuple(map(int, found.groups())) == sys.version_info[:2]


def ready() -> bool:
    return python().exists() and fits() and STAMP.exists() and STAMP.read_text() == fingerprint()


def installer() -> list[str]:
    """uv where pip can install it (ten times faster), else pip itself."""
    subprocess.run([python(), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "uv"], check=False)
    uv = python().with_name("uv.exe" if os.name == "nt" else "uv")
    if uv.exists():
        return [str(uv), "pip", "install", "--quiet", "--python", str(python())]
    return [str(python()), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]


def install() -> None:
    """Create .venv and install the locked packages and this project into it."""
    if not SUPPORTED[0] <= sys.version_info[:2] <= SUPPORTED[1]:
        sys.exit(
            f"Python 3.11, 3.12 or 3.13 is needed. Received: {sys.version.split()[0]}. Try: make PYTHON=python3.12"
        )
    started = time.monotonic()
    print("Setting up .venv: the locked packages, about 2 GB (once; later calls use it as it is) ...", flush=True)
    # An interrupted set-up begins afresh, and so does one for another version of Python.
    clear = [] if STAMP.exists() and python().exists() and fits() else ["--clear"]
    STAMP.unlink(missing_ok=True)
    subprocess.run([sys.executable, "-m", "venv", *clear, FOLDER], check=True)
    command = installer()
    locked = [*command, "-r", str(ROOT / "requirements.txt")]
    if subprocess.run(locked).returncode != 0:
        print("The fast installer did not get through; trying again with pip ...", flush=True)
        command = [str(python()), "-m", "pip", "install", "--disable-pip-version-check"]
        subprocess.run([*command, "--quiet", "-r", str(ROOT / "requirements.txt")], check=True)
    subprocess.run([*command, "--no-deps", "--editable", str(ROOT)], check=True)
    STAMP.write_text(fingerprint())
    print(f"Environment ready in {time.monotonic() - started:.0f} s.", flush=True)


def lock() -> None:
    """Rewrite requirements.txt from pyproject.toml: one lock for all systems and Python versions."""
    if not ready():
        install()
    uv = shutil.which("uv", path=str(python().parent)) or shutil.which("uv")
    if not uv:
        sys.exit("uv is needed to write the lock, and pip could not install it into .venv")
    subprocess.run([uv, *LOCK, *EXTRAS, "pyproject.toml", "-o", "requirements.txt", "--quiet"], cwd=ROOT, check=True)
    print("requirements.txt written. Run `make test` before committing it.")


if __name__ == "__main__":
    if sys.argv[1:] == ["--lock"]:
        lock()
    elif not ready():
        install()
