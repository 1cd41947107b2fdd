"""Write pages as notebooks for students into handouts/: without solutions, and without marks that only the site reads.

A solution (cells with the tag `hide-cell`, and what is said about them) becomes an empty cell. Numbers that the site puts
into sentences come from an executed copy of the page: from the last build, or from the folder that --executed names. Where
there is no such copy, the sentence says which number it is. Terms and citations become words, diagrams plain Mermaid
(JupyterLab draws it), and links to other pages lead to the site. The page itself stays as it is. Called by `make handout`.
"""

import argparse
import ast
import functools
import re
import shutil
import sys
from pathlib import Path

import nbformat
import notebooks
import sync
from page_paths import in_book

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "handouts"
SOLUTION = "hide-cell"
EMPTY = "# your solution"
NEXT = re.compile(r"^(\*\*★|#+ )", re.M)  # an exercise or a heading
RECORD = "application/papermill.record/"  # MyST-NB's prefix of a glued text that is not shown
ROLE = re.compile(r"\{(term|glue:text|cite(?::[pt])?)\}`([^`]+)`")
FENCE = re.compile(r"^(`{3,}|:{3,})\{([\w-]+)\} *(.*)\n((?:.*\n)*?)\1 *$", re.M)
BOX = re.compile(r"admonition|attention|caution|danger|error|hint|important|note|seealso|tip|warning")
LINK = re.compile(r"\]\((?!\w+:)([^)\s#]+)\.(?:ipynb|md)(#[^)\s]*)?\)")


def students(page: nbformat.NotebookNode, source: Path, numbers: dict[str, str]) -> nbformat.NotebookNode:
    """A page as students get it; the page itself is not changed.

    Args:
        page: the notebook.
        source: its file, from which its links start.
        numbers: texts by the key under which the page glues them.
    """
    cells, within = [], False  # a solution: its cells, and what is said about them before the next exercise or heading
    for cell in nbformat.from_dict(page).cells:
        if SOLUTION in cell.metadata.get("tags", []):
            cells += [] if within else [nbformat.v4.new_code_cell(EMPTY, id=cell.id)]
            within = True
            continue
        if cell.cell_type == "markdown":
            begin = NEXT.search(cell.source) if within else None
            if within and not begin:
                continue
            cell.source = plain(cell.source[begin.start() if begin else 0 :], source, numbers)
        within = False
        cells.append(cell)
    made = nbformat.v4.new_notebook(cells=cells, metadata=page.metadata)
    nbformat.validate(made)
    return made


def plain(text: str, source: Path, numbers: dict[str, str]) -> str:
    """Markdown that any notebook program shows: roles and directives as words, links to other pages leading to the site."""

    def words(match: re.Match) -> str:
        role, inner = match[1], " ".join(match[2].split())
        if role == "term":
            return re.sub(r" *<[^<>]*>$", "", inner)
        if role == "glue:text":
            return numbers.get(inner, f"(run the page: {inner})")
        return cited([key.strip() for key in inner.split(",")], inside=role != "cite:t")

    def link(match: re.Match) -> str:
        path = (source.parent / match[1]).resolve().relative_to(ROOT.resolve())
        return f"]({sync.pages_url(sync.slug())}/{path.as_posix()}.html{match[2] or ''})"

    return LINK.sub(link, ROLE.sub(words, FENCE.sub(fence, text)))


def fence(match: re.Match) -> str:
    """A diagram as plain Mermaid, a box as a quotation; other directives stay as they are."""
    marks, name, title, body = match.groups()
    if name == "mermaid":
        return f"```mermaid\n{body}```"
    if not BOX.fullmatch(name):
        return match[0]
    lines = re.sub(r"\A(:[\w-]+:.*\n)*\n*", "", body).rstrip().split("\n")
    return "\n".join(f"> {line}".rstrip() for line in [f"**{title or name.capitalize()}**", "", *lines])


def cited(keys: list[str], *, inside: bool) -> str:
    """Works as authors and year: ``Pan and Yang (2010)``, or ``(Pan and Yang, 2010)`` inside a sentence."""
    unknown = [key for key in keys if key not in works()]
    if unknown:
        raise ValueError(f"works cited must stand in book/references.d/*.bib. Received: {', '.join(unknown)}")
    found = [works()[key] for key in keys]
    if inside:
        return f"({'; '.join(f'{authors}, {year}' for authors, year in found)})"
    return ", ".join(f"{authors} ({year})" for authors, year in found)


@functools.cache
def works() -> dict[str, tuple[str, str]]:
    """Key to authors and year, of every work in the bibliography."""
    from pybtex.database import parse_file
    from pybtex.richtext import Text

    found = {}
    for path in sorted((ROOT / "book" / "references.d").glob("*.bib")):
        for key, entry in parse_file(str(path)).entries.items():
            people = entry.persons.get("author") or entry.persons.get("editor") or []
            names = [" ".join([*one.prelast_names, *one.last_names]) for one in people] or [entry.fields["title"]]
            names = [str(Text.from_latex(name)) for name in names]
            told = " and ".join(names) if len(names) < 3 else f"{names[0]} et al."
            found[key] = (told, entry.fields.get("year", "no year"))
    return found


def glued(ran: nbformat.NotebookNode) -> dict[str, str]:
    """Key to text, of all that an executed notebook glued."""
    outputs = [output for cell in ran.cells if cell.cell_type == "code" for output in cell.outputs]
    found = {}
    for output in outputs:
        key, text = output.get("metadata", {}).get("scrapbook", {}).get("name"), output.get("data", {})
        text = text.get(f"{RECORD}text/plain") or text.get("text/plain")
        if key and text:
            found[key] = str(ast.literal_eval(text)) if text[:1] in "'\"" else text
    return found


def executed(page: nbformat.NotebookNode, source: Path, folder: Path | None) -> nbformat.NotebookNode | None:
    """The page as it was executed: in a folder, else by the last build of the book, if nothing changed since.

    Raises:
        ValueError: the folder's copy did not run to its end, or has other code than the page.
    """
    if folder is None:
        return built(page)
    places = (source.relative_to(ROOT), source.relative_to(ROOT / "book"), source.name)
    copy = next((folder / place for place in places if (folder / place).is_file()), None)
    if copy is None:
        return None
    ran = nbformat.read(copy, as_version=4)
    code = [[cell.source for cell in one.cells if cell.cell_type == "code"] for one in (page, ran)]
    if code[0] != code[1] or not notebooks.finished(ran):
        raise ValueError(f"{copy} must be this version of {source.name}, executed to its end. Run the page again")
    return ran


def built(page: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """The page from the cache of the last build, which is left as it is."""
    told = notebooks.FINGERPRINT
    if not (notebooks.CACHE.is_dir() and told.exists() and told.read_text() == notebooks.fingerprint()):
        return None
    cache = notebooks.get_cache(notebooks.CACHE)
    try:
        return cache.get_cache_bundle(cache.match_cache_notebook(page).pk).nb
    except KeyError:
        return None


def hand_out(source: Path, folder: Path | None = None) -> tuple[Path, nbformat.NotebookNode]:
    """Where a page's handout belongs, and the handout."""
    page = nbformat.read(source, as_version=4)
    ran = executed(page, source, folder)
    return FOLDER / source.relative_to(ROOT / "book"), students(page, source, glued(ran) if ran else {})


def write(path: Path, made: nbformat.NotebookNode, pictures: Path) -> str:
    """Write a handout, with the pictures that lie beside its page; what it has, for the reader."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(nbformat.writes(made) + "\n", encoding="utf-8", newline="\n")
    if pictures.is_dir():  # recorded ones, which the page shows
        shutil.copytree(pictures, path.parent / pictures.name, dirs_exist_ok=True)
    empty = sum(cell.source == EMPTY for cell in made.cells)
    missing = sum(cell.source.count("(run the page: ") for cell in made.cells)
    left = f", {missing} numbers left out (`make book`, or --executed, brings them)" if missing else ""
    return f"{path.relative_to(FOLDER.parent).as_posix()}: {empty} solutions taken out{left}"


def main() -> int:
    """Write the handouts asked for, all or none; the exit status is 2 where that cannot be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="+", metavar="NOTEBOOK", help="book/PART/SLUG.ipynb")
    parser.add_argument(
        "--executed", type=Path, metavar="FOLDER", help="where executed copies lie, as PART/SLUG.ipynb or SLUG.ipynb"
    )
    asked = parser.parse_args()
    if asked.executed and not asked.executed.is_dir():
        parser.error(f"--executed must be a folder. Received: {asked.executed}")
    try:
        sources = [ROOT / in_book(name, ROOT) for name in asked.notebooks]
        made = [(source, *hand_out(source, asked.executed)) for source in sources]
    except ValueError as error:
        parser.error(str(error))
    for source, path, notebook in made:
        print(write(path, notebook, source.parent / "pictures"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
