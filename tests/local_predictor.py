"""Small models that tell red from blue: one saved as a file, and one behind the page."""

import io
import threading

import keras
import numpy as np
import pytest
from PIL import Image

from tl_helpers import predictor, runtime, serving


def png(rgb, size=(40, 30)) -> bytes:
    held = io.BytesIO()
    Image.new("RGB", size, rgb).save(held, "PNG")
    return held.getvalue()


RED, BLUE = png((220, 20, 20)), png((20, 20, 220))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Red against blue by the mean colour: a model small enough for every test."""
    runtime.set_seed(0)
    images = keras.Input((None, None, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(images))
    model = keras.Model(images, keras.layers.Dense(2, name="head")(x))
    model.get_layer("head").set_weights([np.array([[-2.0, 2], [0, 0], [2, -2]], np.float32), np.zeros(2, np.float32)])
    path = tmp_path_factory.mktemp("model") / "my colours.keras"
    return predictor.save(model, path, ["blue", "röd"], pixels=8, fit="pad"), path


class Colours:
    """Stands in for a model: tells red from blue by the mean."""

    def predict_on_batch(self, images):
        red, _, blue = images.mean((1, 2)).T
        return np.stack([blue - red, red - blue, 0 * red], -1) / 50


@pytest.fixture(scope="module")
def server():
    found = predictor.Predictor(Colours(), ("blue", "<b>röd</b>", "none"), 8, "crop")
    made = serving.make_server(found, 0, "colours.keras")
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()
