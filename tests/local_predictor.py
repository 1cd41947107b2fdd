"""A small model behind the page, for tests of the server and of the page."""

import io
import threading

import numpy as np
import pytest
from PIL import Image

from tl_helpers import predictor, serving


def png(rgb, size=(40, 30)) -> bytes:
    held = io.BytesIO()
    Image.new("RGB", size, rgb).save(held, "PNG")
    return held.getvalue()


RED, BLUE = png((220, 20, 20)), png((20, 20, 220))


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
