"""Records that tests make: one line in a folder."""

import json


def put(
    folder, experiment="demo", arm="a", seed=0, scale="full", pair=None, weights=None, data=None, about=None, **metrics
):
    record = {
        "scale": scale,
        "arm": arm,
        "pair": pair,
        "seed": seed,
        "experiment": experiment,
        "metrics": metrics,
        "weights": weights,
        "data": data,
        "device": {"name": "cpu", "cores": 2},
        **(about or {}),
    }
    with open(folder / f"{experiment}.jsonl", "a") as file:
        file.write(json.dumps(record) + "\n")
