"""No measured number is typed into prose or a caption: it comes by glue, or from a cell."""

import re

import pytest
from written_pages import IDS, NOTEBOOKS, PAGES, code_cells, read

# A result of ours typed into prose: a word for a measured quantity near a bare number, or a number with a unit of time.
QUANTITY = r"(accuracy|accurate|error rate|test loss|validation loss|training loss|precision|recall|F1|speed-?up)"
LINK = r"(is|was|of|reaches|reached|gets|got|gives|gave|at|to|about|around|rises|falls|=|≈|:)"
TYPED = [
    re.compile(rf"(?i)\b{QUANTITY}\b[^.\n|]{{0,25}}\b{LINK}\s+\**(0\.\d{{2,4}}|\d{{1,2}}(\.\d+)?\s?%)"),
    re.compile(
        r"(?i)\b(takes|took|lasts|lasted|in|after|faster by|slower by)\s+\**\d+(\.\d+)?\s?(seconds|minutes|s|min|ms)\b(?! (or|per))"
    ),
    re.compile(r"(?i)\b\d+(\.\d+)?\s?(times|×|x) (faster|slower|better|worse)\b"),
    re.compile(rf"(?i)\b{QUANTITY}\b[^.\n|]{{0,40}}\bfrom\s+(0\.\d{{2,4}}|\d{{1,2}}(\.\d+)?\s?%)\s+to\b"),
    re.compile(r"(?i)\b\d{1,2}(\.\d+)?\s?(%|per cent|percent) (right|correct|wrong)\b"),
]
# Where a number is no result of ours: an exercise's or a thought experiment's assumption, or a prediction to be made.
# The word must stand before the number, in the same clause: "if you look, accuracy is 0.83" is a typed result.
ALLOWED = re.compile(
    r"(?i)\b(suppose|imagine|assume|guess|predict|pretend|by chance|chance level|claims?|document 00\d"
    r"|if (a|an|one|the|its|your|some|two|each)|(say|let) (a|an|one|your|some)|would|for example)\b[^,;.]*$"
)


def typed_results(text: str) -> list[str]:
    """Sentences in which a measured number seems to be typed; code, formulas, glue and links are left out."""
    for pattern in (
        r"```.*?```",
        r"\$\$.*?\$\$",
        r"\$[^$\n]+\$",
        r"\{[a-z:]+\}`[^`]*`",
        r"`[^`]*`",
        r"\]\([^)]*\)",
        r"<[^>]+>",
    ):
        text = re.sub(pattern, " ", text, flags=re.S)
    sentences = re.split(r"(?<=[.!?])\s+|\n{2,}|\n(?=[-|#>])", text)
    found = [(s.strip(), hit) for s in sentences for p in TYPED for hit in p.finditer(s)]
    before = lambda hit: re.sub(r"\**[\d.]+\s?\S*( \w+)?$", "", hit.string[: hit.end()])  # noqa: E731
    return list(dict.fromkeys(s for s, hit in found if not ALLOWED.search(before(hit))))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)
def test_a_notebook_types_no_result(path):
    found = [
        s
        for cell in read(path)["cells"]
        if cell["cell_type"] == "markdown"
        for s in typed_results("".join(cell["source"]))
    ]
    assert not found, "take these numbers by glue or from a code cell:\n" + "\n".join(found)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)
def test_a_caption_types_no_result(path):
    for cell in code_cells(read(path)):
        shown = cell["metadata"].get("mystnb", {})
        texts = [shown.get("figure", {}).get("caption", ""), shown.get("image", {}).get("alt", "")]
        assert not [s for text in texts for s in typed_results(text)], cell["id"]


@pytest.mark.parametrize(
    "text",
    [
        "The accuracy is 0.83.",
        "It reaches a test accuracy of 83 %.",
        "One epoch takes 12 s.",
        "This is 9.7 times faster.",
        "The validation loss falls to 0.41 at the end.",
        "If you look at the table, the accuracy is 0.83.",
        "Let us see: it reaches a test accuracy of 83 %.",
        "We say the accuracy is 0.71.",
        "Accuracy climbed from 0.62 to 0.71.",
        "It got 71.3 % right.",
    ],
)
def test_a_typed_result_is_noticed(text):
    assert typed_results(text)


@pytest.mark.parametrize(
    "text",
    [
        "The accuracy is {glue:text}`x/y/test_accuracy`.",
        "Suppose the accuracy is 0.83.",
        "Train with a learning rate of 0.01.",
        "Document 000 claims an accuracy of 0.8250.",
        "With 100 labels a class.",
        "A dropout of 0.5 is used.",
        "Predict: is the accuracy above 50 %?",
        "If the accuracy is 0.83, how wide is the interval?",
        "Such a model would get 10 % right.",
    ],
)
def test_other_numbers_are_left_alone(text):
    assert not typed_results(text)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_of_prose_types_no_result(path):
    assert typed_results(path.read_text(encoding="utf-8")) == []
