"""Findings that pages state in words, without a number that could be glued: each still follows from the records.

A finding is asked for as the page says it: "ahead" and "loses more" by the rule of the page, "the lowest" by means. Where
a new recording turns one over, this says which page to read again.
"""

import re

import numpy as np
import pytest
from conftest import ROOT

from tl_helpers import evaluation, report

VGG16, MOBILENET, SMALLER = (f"{net} from {source}" for net, source in (
    ("VGG16", "Tiny ImageNet"), ("MobileNet 1.0", "ImageNet"), ("MobileNet 0.5", "ImageNet"),
))  # fmt: skip
NEAR_GUESSING = 0.15  # among ten classes


def found(experiment: str, metric: str = "test_accuracy") -> dict[tuple[str | None, str], np.ndarray]:
    """Setting and arm to one number a seed, from the largest recorded scale."""
    scale, records = report.recorded(experiment)
    assert scale == "full"
    return {key: np.array(numbers) for key, numbers in report.values(records, metric).items()}


def mean(experiment: str, metric: str = "test_accuracy", pair: str | None = None) -> dict[str, float]:
    """Arm to its mean over the seeds, in one setting."""
    return {arm: numbers.mean() for (at, arm), numbers in found(experiment, metric).items() if at == pair}


def word(gaps) -> str:
    """What the rule of the pages says of paired differences."""
    return evaluation.verdict(gaps)[1]


def how_good():
    _, records = report.recorded("how-good")
    tuned = [r["metrics"] for r in records if r["arm"] == "fine-tuned"]
    for m in tuned:
        mixed, names = np.array(m["confusion"]), m["classes"]
        f1 = 2 * mixed.diagonal() / (mixed.sum(0) + mixed.sum(1))
        both = np.triu(mixed + mixed.T, 1)
        assert {names[i] for i in np.unravel_index(both.argmax(), both.shape)} == {"cat", "dog"}
        assert (names[f1.argmin()], names[f1.argmax()]) == ("cat", "automobile")


def how_good_calibration():
    before, after = (found("how-good", f"calibration_error{end}") for end in ("", "_scaled"))
    assert all(np.all(after[arm] < 0.5 * before[arm]) for arm in before)
    assert all(np.all(t > 1) for t in found("how-good", "temperature").values())
    losses, scaled = (found("how-good", f"test_loss{end}") for end in ("", "_scaled"))
    assert all(np.all(scaled[arm] < losses[arm]) for arm in losses)


def how_good_pairs_and_maps():
    pairs = report.recorded("how-good-pairs")[1]
    assert all(r["metrics"]["difference_ci95"][0] > 0 for r in pairs)
    assert word([r["metrics"]["difference"] for r in pairs]) == "better"
    maps = [r["metrics"] for r in report.recorded("how-good-maps")[1] if "more_ci95" in r["metrics"]]
    assert maps and all(m["more_ci95"][0] > 0 for m in maps)


def preprocessing_doses():
    lost = found("preprocessing-contrast")
    by = {net: {a: lost[net, "÷1"] - lost[net, f"÷{a}"] for a in (2, 8, 255)} for net in (VGG16, MOBILENET)}
    words = {a: word(by[VGG16][a] - by[MOBILENET][a]) for a in (2, 8, 255)}
    assert words == {2: "not told apart", 8: "better", 255: "worse"}  # "better" here: VGG16 loses more


def preprocessing_won_back():
    plain, standardised = found("preprocessing"), found("preprocessing-standardised")
    for net, way in ((VGG16, "unit"), (VGG16, "twice"), (MOBILENET, "twice")):
        before = (plain[net, "own"] - plain[net, way]).mean()
        after = (standardised[net, "own"] - standardised[net, way]).mean()
        assert 0.2 * before < before - after < 0.6 * before, (net, way)
    barely = [(of[MOBILENET, "own"] - of[MOBILENET, "unit"]).mean() for of in (plain, standardised)]
    assert abs(barely[0] - barely[1]) < 0.01


def backbones():
    reached = found("backbones-program")
    for net in (VGG16, MOBILENET):
        assert word(reached[net, "a tenth of the rate"] - reached[net, "own preprocessing"]) == "better"
        assert word(reached[net, "own preprocessing"] - reached[net, "as printed"]) == "not told apart"
    left = "a tenth of the rate, divided by 255"
    assert reached[VGG16, left].max() < NEAR_GUESSING and reached[VGG16, "own preprocessing"].max() < 2 * NEAR_GUESSING
    assert word(reached[VGG16, "a tenth of the rate"] - reached[VGG16, left]) == "better"
    assert word(reached[MOBILENET, "a tenth of the rate"] - reached[MOBILENET, left]) == "not told apart"
    assert mean("backbones-cost", "time_over_vgg16_ratio", "32 px")["ResNet50"] < 1
    seconds = {a: s for (_, a), s in found("backbones-epoch", "images_per_second").items()}
    assert seconds["document 001's program"] > 5 * seconds["document 004's program"]


def unfreezing_faster_averages():
    reached = {arm: numbers for (_, arm), numbers in found("unfreezing-batch-norm").items()}
    slow, frozen = (reached[f"{mode}, batches of 2"] for mode in ("training", "frozen"))
    faster = reached["training, batches of 2, faster averages"]
    assert word(faster - frozen) == "worse" and word(faster - slow) == "not told apart"


def backbones_other_program():
    reached = found("backbones-program-004")
    for net in (VGG16, MOBILENET):
        assert reached[net, "as printed"].max() < NEAR_GUESSING
        assert reached[net, "own preprocessing and a tenth of the rate"].min() > 4 * NEAR_GUESSING


def kept_features():
    blocks, narrow = mean("kept-features-blocks"), mean("kept-features-pca")
    assert max(blocks, key=blocks.get) != "block5_pool"
    assert narrow["64 dimensions"] > blocks["block1_pool"] and narrow["256 dimensions"] < blocks["block3_pool"]
    assert max(narrow.values()) - narrow["128 dimensions"] < 0.02
    light = mean("kept-features-regression", "test_r2")
    assert max(light, key=light.get) == "block1_pool" != max(blocks, key=blocks.get)


def source_model():
    top1 = mean("source-model-bits", "val_top1")
    assert max(abs(top1[a] - top1["float32"]) for a in ("8 bits", "8 bits, one scale a kernel")) < 0.01
    assert abs(top1["4 bits"] - top1["4 bits, one scale a kernel"]) > 0.02
    alike = mean("source-neighbours", "same_class_accuracy")
    assert 2 * alike["raw pixels"] < alike["features"] < 0.5
    curve = next(r for r in report.recorded("source-training")[1] if r["arm"] == "second cycle")["metrics"]
    first = mean("source-training", "val_top1")["this recipe"]
    assert min(curve["val_accuracy_by_epoch"]) < first < curve["val_accuracy_by_epoch"][-1]


def resolution():
    at = found("resolution")
    twice = {net: word(at[net, "64 px"] - at[net, "32 px"]) for net in (VGG16, MOBILENET, SMALLER)}
    assert twice == {VGG16: "worse", MOBILENET: "better", SMALLER: "better"}
    assert all(other.mean() < 0.2 for other in found("resolution-mismatch", "other_size_val_accuracy").values())


def unfreezing():
    val = {key: numbers.mean() for key, numbers in found("unfreezing", "val_accuracy").items()}
    broken, top = {}, {}
    for arm in {arm for _, arm in val}:
        means = {float(rate): m for (rate, a), m in val.items() if a == arm}
        broken[arm] = {rate for rate, m in means.items() if m < max(means.values()) - 0.1}
        top[arm] = {rate for rate, m in means.items() if m >= max(means.values()) - 0.01 - 1e-9}
    assert not broken["block 5"] and broken["blocks 4–5"] and broken["all"]
    assert min(broken["all"]) < min(broken["blocks 4–5"]) and max(top["all"]) < max(top["block 5"])


def fine_tuning():
    tried = mean("fine-tuning-rates", "val_accuracy")
    assert tried[max(tried, key=float)] < NEAR_GUESSING
    few, kept = mean("fine-tuning")["all"], mean("kept-features", pair="all-labels")["kept features"]
    assert few > kept - 0.03 and few > max(mean("kept-features-blocks").values()) - 0.03


def best_recipe():
    tried = mean("best-recipe-rates", "val_accuracy", "CPU")
    rates = sorted(tried, key=float)
    assert max(tried, key=tried.get) not in (rates[0], rates[-1])
    rungs = ["fine-tuning recipe", *(f"+ {piece}" for piece in (
        "batch norm put back", "one cycle of SGD", "kernels of a fresh size", "label smoothing", "small images first",
    ))]  # fmt: skip
    ladder = mean("best-recipe-ladder", "val_accuracy")
    steps = {b: abs(ladder[b] - ladder[a]) for a, b in zip(rungs, rungs[1:])}
    assert set(sorted(steps, key=steps.get)[-2:]) == {"+ one cycle of SGD", "+ kernels of a fresh size"}


def best_recipe_against_scratch():
    runs = {r["arm"]: r for r in report.recorded("what-transfer-buys")[1] if r["pair"] == "4500 a class"}
    scratch, tuned = (runs[arm] for arm in ("from scratch", "fine-tuned with batch norm"))
    assert scratch["recipe"]["epochs"] == 2 * tuned["recipe"]["epochs"]
    ended = scratch["metrics"]
    assert ended["late_accuracy_gain"] > 0.02 and ended["train_accuracy"] < 0.95


def documents_program():
    assert mean("documents-program-preprocessing")["divided by 255"] < NEAR_GUESSING
    assert np.ptp(found("documents-program")[None, "tiny-imagenet weights"]) < 0.03


def when_it_helps():
    reached = found("when-it-helps")
    gains = {source: g - reached["fine-tuned", "random"] for (way, source), g in reached.items() if way == "fine-tuned"}
    assert not [source for source, gap in gains.items() if word(gap) == "worse"]
    assert word(reached["frozen", "centred"] - reached["fine-tuned", "random"]) == "worse"


def map_of_the_field():
    programs = ("structure", "parameter", "composite")
    max_pool, flatten = (mean("map-of-the-field", pair=net) for net in ("max-pool", "flatten"))
    assert max_pool["structure"] > max(flatten[program] for program in programs) + 0.05
    both = found("map-of-the-field")
    costs = {p: word(both["max-pool", p] - both["max-pool", "structure"]) for p in programs[1:]}
    assert costs == {"parameter": "worse", "composite": "not told apart"}


def transfer_formally():
    reached = found("transfer-formally-near-source")
    others = ("no pull", "towards zero", "from scratch", "source as it is")
    for tilt in ("tilt 10", "tilt 20"):
        near = reached[tilt, "towards the source"]
        assert all(word(near - reached[tilt, other]) == "better" for other in others)
    assert reached["tilt 45", "towards zero"].mean() > reached["tilt 45", "towards the source"].mean()
    fused = found("transfer-formally-fusion")
    assert word(fused[None, "B"] - fused[None, "A"]) == "not told apart"
    assert word(fused[None, "A beside B"] - fused[None, "A"]) == "better"


def own_pictures():
    flips = found("own-pictures-flips")
    assert flips[None, "with flips"].mean() < 0.7 < flips[None, "without flips"].mean()


def first_chapter():
    reached = found("what-is-transfer-learning")
    words = {n: word(reached[f"{n}-per-class", "transfer"] - reached[f"{n}-per-class", "scratch"]) for n in (5, 10, 20)}
    assert words == {5: "better", 10: "better", 20: "not told apart"}
    for n in words:
        assert word(reached[f"{n}-per-class", "scratch"] - reached[f"{n}-per-class", "random-features"]) == "better"


def how_transferable():
    reached = found("how-transferable")
    for cut in (f"cut {n}" for n in range(1, 6)):
        assert reached[cut, "A → B, frozen"].mean() > reached[cut, "random, frozen"].mean()


def training_strategies():
    reached, few, more = found("training-strategies"), "3 labels a class", "20 labels a class"
    frozen = ("linear probe", "deeper head", "adapters", "LoRA")
    for arm in ("fine-tuning", "gradual unfreezing", "near source weights", "near source features"):
        assert all(word(reached[few, arm] - reached[few, other]) == "better" for other in frozen)
    assert all(word(reached[few, arm] - reached[few, "from scratch"]) == "not told apart" for arm in frozen)
    assert all(reached[more, "from scratch"].mean() > reached[more, arm].mean() for arm in frozen)


def descending():
    rules, rates = mean("descending"), found("descending-learning-rate", "val_accuracy")
    for rule in rules:
        tried = [numbers.mean() for (_, arm), numbers in rates.items() if arm == rule]
        assert np.ptp(tried) > 5 * np.ptp(list(rules.values()))


FINDINGS = {  # a finding, the page that states it, and words of it there
    how_good: ("vgg16-cifar10/how-good", "mix up dogs and cats most"),
    how_good_calibration: ("vgg16-cifar10/how-good", "promise more than they keep"),
    how_good_pairs_and_maps: ("vgg16-cifar10/how-good", "every paired interval lies above zero"),
    preprocessing_doses: ("vgg16-cifar10/preprocessing", "are not told apart; at 8, VGG16 loses more"),
    preprocessing_won_back: ("vgg16-cifar10/preprocessing", "a part is won back, far from all"),
    backbones: ("vgg16-cifar10/backbones", "One repair stands out in the table of steps: a tenth of the rate"),
    kept_features: ("vgg16-cifar10/kept-features", "an earlier block serves the new task better than the last"),
    source_model: ("vgg16-cifar10/source-model", "At 8 bits either scale will do"),
    resolution: ("vgg16-cifar10/resolution", "At twice the side the embedded VGG16 loses, and both MobileNets gain"),
    unfreezing: ("vgg16-cifar10/unfreezing", "block 5 bears every rate that was tried"),
    fine_tuning: ("vgg16-cifar10/fine-tuning", "At the largest rate no more than guessing is left"),
    best_recipe: ("vgg16-cifar10/best-recipe", "two rungs are by far the largest steps"),
    unfreezing_faster_averages: ("vgg16-cifar10/unfreezing", "With two pictures at a time they are no repair"),
    backbones_other_program: ("vgg16-cifar10/backbones", "As printed it stays at guessing; repaired, it learns"),
    best_recipe_against_scratch: ("vgg16-cifar10/best-recipe", "with twice the epochs, and not done by then"),
    documents_program: ("vgg16-cifar10/documents-program", "no better than guessing"),
    when_it_helps: ("concepts/when-it-helps", "Fine-tuned, no source does harm that counts"),
    map_of_the_field: ("concepts/map-of-the-field", "far ahead of every flatten program"),
    transfer_formally: ("math/transfer-formally", "At 10 and 20 degrees the pull towards the source is best"),
    first_chapter: (
        "concepts/what-is-transfer-learning",
        "With five and with ten labels a class, transfer is well ahead",
    ),
    how_transferable: ("concepts/how-transferable", "at every cut the mean of A's frozen layers lies above"),
    training_strategies: ("concepts/training-strategies", "close together in front"),
    descending: ("math/descending", "matters far more than choosing the rule"),
    own_pictures: ("vgg16-cifar10/own-pictures", "The flips destroyed the task"),
}


@pytest.mark.parametrize("finding", FINDINGS, ids=lambda finding: finding.__name__)
def test_findings_in_words_follow_from_the_records(finding):
    page, words = FINDINGS[finding]
    text = (ROOT / "book" / f"{page}.ipynb").read_text(encoding="utf-8")
    prose = re.sub(r'\\n",\s*"', " ", text)
    assert words in prose, f"{page} no longer says so: take the finding out, or its new words in"
    finding()
