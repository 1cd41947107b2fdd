"""Train the source model, both cycles, and put it in place of the embedded weights (hours; needs Tiny ImageNet).

The runs are those of the chapter *Training the source model* at full scale, under the same names: interrupted, they go
on from their last epoch, and the chapter, recorded afterwards, finds them finished and completes their records.
"""

import sys

from tl_helpers import backbones, datasets, evaluation, packing, recipes, runtime, source_model, training

DTYPE = runtime.training_dtype()  # as in the chapter: it is part of the run's name
FIRST = "SOURCE_GPU" if runtime.device()["kind"] == "gpu" else "SOURCE"  # as in the chapter
CYCLES = {"this recipe": getattr(recipes, FIRST), "second cycle": recipes.SOURCE_AGAIN}


def train(source):
    """The model after both cycles, and the hours they took."""
    runtime.set_seed(0)
    model = source_model.build_vgg16_bn(len(source.class_names), dtype=DTYPE)
    told = {"experiment": "source-training", "seed": 0, "backbone": "vgg16"}
    seconds = 0.0
    for arm, recipe in CYCLES.items():
        began = {} if arm == "this recipe" else {"began_from": "this recipe"}
        run = training.fit(model, source, recipe, arm=arm, extra={"narrower": 1, "dtype": DTYPE, **began}, **told)
        seconds += run.elapsed()
        for row in run.history:
            print({name: round(value, 4) for name, value in row.items()})
    trained = source_model.build_vgg16_bn(len(source.class_names))
    trained.set_weights(model.get_weights())
    return trained, seconds / 3600


def main() -> int:
    """Train, report, replace."""
    if runtime.scale() != "full":
        sys.exit(f"the source model is trained at full scale. Received: {runtime.scale()}; set TL_SCALE=full")
    source = datasets.load("tiny-imagenet-32")
    trained, hours = train(source)
    outputs = evaluation.logits(trained, source.val.images)
    top1, top5 = (100 * evaluation.top_k_accuracy(outputs, source.val.labels, k) for k in (1, 5))
    device = runtime.device()
    facts = {
        "Training": f"from random weights, {CYCLES['this recipe'].epochs} epochs of `recipes.{FIRST}` ((epochs, pixels): "
        f"{CYCLES['this recipe'].stages}), then {recipes.SOURCE_AGAIN.epochs} of `recipes.SOURCE_AGAIN`; "
        f"{hours:.1f} hours on {device['name']}, {device['cores']} cores, {DTYPE}, seed 0",
        "Validation top-1 / top-5 before rounding to 8 bits (10,000 images, 32 px)": f"{top1:.1f} % / {top5:.1f} %",
    }
    print("packed:", packing.pack(trained, backbones.EMBEDDED, source.class_names, facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
