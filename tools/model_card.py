"""Write the results of the shipped weights into their model card, from the run records.

python tools/model_card.py
"""

from pathlib import Path

from tl_helpers import report, results

CARD = Path(__file__).resolve().parent.parent / "tl_helpers" / "weights" / "vgg16_tiny_imagenet_32.md"
BEGIN, END = "<!-- results: written by tools/model_card.py -->\n", "<!-- end of results -->"
# What was measured: experiment, arm and metric of records at full scale.
ROWS = {
    "Tiny ImageNet, validation top-1 (10,000 images, 32 px)": ("source-training", "shipped model", "val_top1"),
    "Tiny ImageNet, validation top-5": ("source-training", "shipped model", "val_top5"),
    "CIFAR-10, test accuracy of a linear probe on its frozen features, all labels": (
        "source-probe",
        "source model",
        "test_accuracy",
    ),
    "the same on VGG16 with random weights, for comparison": ("source-probe", "random weights", "test_accuracy"),
}


def rows() -> str:
    """The table's body; a number that is not on record stops it."""
    lines = []
    for what, (experiment, arm, metric) in ROWS.items():
        numbers = report.values(results.load(experiment, scale="full"), metric).get((None, arm))
        if not numbers:
            raise ValueError(f"{experiment} / {arm} / {metric} is not on record at full scale. Record it first")
        lines.append(f"| {what} | {report.show(numbers, metric)} |\n")
    return "".join(lines)


def card() -> str:
    """The card as it should be."""
    before, rest = CARD.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}| Measured with the shipped file, at 8 bits | recorded at full scale |\n|---|---|\n{rows()}{END}{after}"


if __name__ == "__main__":
    CARD.write_text(card(), encoding="utf-8", newline="\n")
