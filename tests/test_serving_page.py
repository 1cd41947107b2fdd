"""The page that takes pictures, in a browser: files chosen, dropped and pasted; keyboard, screen reader, colours, telephone."""

import os
import threading
from dataclasses import replace

import keras
import numpy as np
import pytest
from local_predictor import BLUE, RED, Colours, server
from made_pictures import encoded
from PIL import Image

from tl_helpers import __main__ as cli
from tl_helpers import (
    backbones,
    evaluation,
    features,
    models,
    picture_files,
    pictures,
    predictor,
    recipes,
    runtime,
    serving,
    training,
)

__all__ = ["server"]  # a fixture
GIVE = """([kind, bodies]) => {
    const held = new DataTransfer();
    bodies.forEach((body, i) => held.items.add(new File([Uint8Array.from(body)], `${kind}${i}.png`, {type: "image/png"})));
    const event = kind === "drop" ? new DragEvent("drop", {dataTransfer: held, bubbles: true, cancelable: true})
                                  : new ClipboardEvent("paste", {clipboardData: held, bubbles: true});
    const place = document.getElementById("drop");
    const over = new DragEvent("dragover", {dataTransfer: held, bubbles: true, cancelable: true});
    place.dispatchEvent(over);  // a browser drops only where this was taken; elsewhere it opens the file
    if (!over.defaultPrevented) throw new Error("dragover is not taken");
    place.dispatchEvent(event);
}"""


class Open:
    """The page in a browser, with every request and error."""

    def __init__(self, browser, server, scheme="light", width=900):
        self.base = f"http://127.0.0.1:{server.server_port}/"
        self.context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
        self.page = self.context.new_page()
        self.asked, self.errors = [], []
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.on("filechooser", lambda _: None)  # from now on, or a dialogue opened at once may go unseen
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.goto(self.base, wait_until="networkidle")

    def status(self, text: str) -> str:
        """What the page says, once it has this text in it."""
        self.page.wait_for_function("t => document.getElementById('status').textContent.includes(t)", arg=text)
        return self.page.locator("#status").text_content()


@pytest.fixture
def opened(browser, server):
    made = Open(browser, server)
    yield made
    assert not [url for url in made.asked if not url.startswith((made.base, "blob:", "data:"))]
    made.context.close()


def upload(name, body):
    return {"name": name, "mimeType": "image/png", "buffer": body}


@pytest.mark.browser
def test_a_chosen_file_is_answered_as_text(opened):
    page = opened.page
    assert "colours.keras tells 3 classes apart" in page.locator("#about").text_content()
    page.set_input_files("#file", upload("<img src=x>.png", RED))
    assert "<b>röd</b>" in opened.status("%")
    assert page.locator("#results h2").text_content() == "<img src=x>.png", "names are text, never markup"
    rows = page.locator("#results tbody tr").all_inner_texts()
    assert len(rows) == 3 and rows[0].startswith("<b>röd</b>")
    page.wait_for_function("() => document.querySelector('#results img').naturalWidth === 40")
    assert not opened.errors


@pytest.mark.browser
def test_bad_and_large_files_are_refused_on_the_page(opened, tmp_path):
    page = opened.page
    page.set_input_files("#file", upload("notes.png", b"words"))
    assert opened.status("refused").startswith("notes.png was refused: not a picture in a known format")
    (tmp_path / "big.png").touch()
    os.truncate(tmp_path / "big.png", serving.MOST_BYTES + 1)  # sparse: it takes no room
    page.set_input_files("#file", tmp_path / "big.png")
    assert opened.status("big.png was refused").endswith(f"at most 40.0 MB are taken. {serving.ADVICE}")
    assert page.locator("#results .error").count() == 2
    page.set_input_files("#file", upload("good.png", BLUE))
    opened.status("good.png: blue")


@pytest.mark.browser
def test_dropped_and_pasted_files_are_answered_in_turn(opened):
    opened.page.evaluate(GIVE, ["drop", [list(RED), list(BLUE)]])
    opened.status("2 of 2 files answered")
    opened.page.evaluate(GIVE, ["paste", [list(RED)]])
    opened.status("paste0.png: <b>röd</b>")
    assert opened.page.locator("#results h2").all_inner_texts() == ["paste0.png", "drop1.png", "drop0.png"]


WATCH = """() => { const status = document.getElementById("status");
    window.heard = []; new MutationObserver(() => heard.push(status.textContent)).observe(status, {childList: true}); }"""


@pytest.mark.browser
def test_many_files_are_two_messages_and_fifty_are_taken(opened):
    page = opened.page
    page.evaluate(WATCH)
    page.evaluate(GIVE, ["drop", [list(RED), list(b"words"), list(BLUE)]])
    told = opened.status("2 of 3 files answered")
    assert "; refused: drop1.png. The last is on top." in told
    assert page.evaluate("() => heard") == ["Looking at 3 files …", told]
    page.evaluate(GIVE, ["drop", [list(RED)] * 52])
    told = opened.status("50 of 50 files answered")
    assert told.endswith("Of 52 files the first 50 are taken; for all of them: python -m tl_helpers predict")
    assert page.locator("#results article").count() == 53 and len(page.evaluate("() => heard")) == 4


@pytest.mark.browser
def test_what_holds_no_file_and_what_cannot_be_read_are_said(opened, tmp_path):
    page = opened.page
    for kind in ("drop", "paste"):
        page.evaluate("() => { document.getElementById('status').textContent = '' }")
        page.evaluate(GIVE, [kind, []])
        assert opened.status("no file in that").endswith("drop it here or choose it.")
    (tmp_path / "moved.png").write_bytes(RED)
    page.evaluate("() => { queue = queue.then(() => new Promise(free => { window.free = free })) }")
    page.set_input_files("#file", tmp_path / "moved.png")
    (tmp_path / "moved.png").unlink()
    page.evaluate("() => free()")
    assert "cannot be read: is it a folder, or was it moved" in opened.status("moved.png was refused")
    (tmp_path / "holiday").mkdir()
    pointer = opened.context.new_cdp_session(page)
    held = {"items": [], "files": [str(tmp_path / "holiday")], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        pointer.send("Input.dispatchDragEvent", {"type": kind, "x": 450, "y": 180, "data": held})
    assert "cannot be read: is it a folder" in opened.status("holiday was refused")


@pytest.mark.browser
def test_the_page_says_what_the_numbers_are(opened):
    page = opened.page
    page.set_input_files("#file", upload("a.png", RED))
    assert "stated confidence 9" in opened.status("a.png: <b>röd</b>")
    assert page.locator("#results thead th").all_inner_texts() == ["class", "stated confidence"]
    assert "Whatever else a picture shows, it names one of them." in page.locator("#about").text_content()


@pytest.mark.browser
def test_keyboard_and_screen_reader(opened):
    page = opened.page
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.id") == "file"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(upload("key.png", RED))
    opened.status("key.png")
    assert page.locator("#status").get_attribute("aria-live") == "polite"
    assert page.get_by_label("Drop pictures here, paste one, or choose files").count() == 1
    assert page.locator("html").get_attribute("lang") == "en" and page.locator("h1").count() == 1
    assert page.locator("#results th[scope=row]").count() == 3 and page.locator("#results caption").count() == 1


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_can_be_read_and_fit_a_telephone(browser, server, scheme):
    made = Open(browser, server, scheme, width=360)
    made.page.set_input_files("#file", upload("a-very-long-name-" * 8 + ".png", RED))
    made.status("röd")
    made.page.set_input_files("#file", upload("bad.png", b"x"))
    made.status("bad.png was refused")
    ratios = made.page.evaluate(
        """() => { const parse = c => c.match(/[\\d.]+/g).slice(0, 3).map(Number);
             const light = c => { const [r, g, b] = parse(c).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
                                  return .2126 * r + .7152 * g + .0722 * b; };
             const back = light(getComputedStyle(document.body).backgroundColor);
             return [...document.querySelectorAll('h1, p, th, td, caption, label')].filter(e => e.textContent.trim()).map(e => {
               const text = light(getComputedStyle(e).color);
               return (Math.max(text, back) + .05) / (Math.min(text, back) + .05); }); }"""
    )
    assert min(ratios) >= 4.5
    assert made.page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    dark = made.page.evaluate("() => getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    made.context.close()


@pytest.mark.browser
def test_a_stopped_program_is_said(browser):
    found = predictor.Predictor(Colours(), ("a", "b", "c"), 8, "crop")
    made = serving.make_server(found)
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    shown = Open(browser, made)
    made.shutdown()
    made.server_close()
    shown.page.set_input_files("#file", upload("late.png", RED))
    assert "is it still running?" in shown.status("late.png was refused")
    shown.context.close()


# --- from a folder to the page


def trained_on(data):
    """VGG16 with a head trained on kept features, then one epoch of its last block, with augmentation."""
    runtime.set_seed(0)
    backbone = backbones.vgg16(weights="tiny-imagenet")
    kept = features.extract(backbone, data, progress=False)
    model = models.transfer_model(backbone, 2)
    head = models.head((512,), 2)
    recipe = recipes.Recipe(epochs=30, batch_size=16, learning_rate=1e-2)
    about = dict(experiment="test-own-pictures", seed=0, progress=False)
    training.fit(head, kept, recipe, arm="head", **about)
    model.get_layer("head").set_weights(head.get_layer("head").get_weights())
    models.unfreeze_from(model, "block5")
    gentle = replace(recipes.FINE_TUNING, epochs=1, batch_size=16)
    assert gentle.flip and gentle.crop_padding
    training.fit(model, data, gentle, arm="block 5", **about)
    return model


@pytest.mark.browser
def test_from_a_folder_to_the_page(browser, tmp_path, capsys):
    """Pictures made here, odd ones among them: loaded, learnt from, saved, exported, asked for by command and on the page."""
    rng = np.random.default_rng(0)
    album = tmp_path / "album"
    for name, rgb in {"red": (200, 40, 40), "blue": (40, 40, 200)}.items():
        (album / name).mkdir(parents=True)
        for i in range(10):
            noise = rng.integers(-40, 40, (48, 40, 3))
            Image.fromarray(np.uint8(np.clip(rgb + noise, 0, 255))).save(album / name / f"{i}.png")
    (album / "red" / "printed.jpg").write_bytes(encoded(Image.new("CMYK", (48, 40), (30, 220, 220, 0)), "JPEG"))
    (album / "blue" / "half.png").write_bytes((album / "blue" / "0.png").read_bytes()[:-200])
    (album / "blue" / "empty.png").touch()
    data, seen = pictures.load_folder(album, progress=False)
    assert seen.used == {"blue": 10, "red": 11} and [name for name, _ in seen.changed] == ["red/printed.jpg"]
    assert sorted(name for name, _ in seen.skipped) == ["blue/empty.png", "blue/half.png"]
    model = trained_on(data)
    file = tmp_path / "m.keras"
    predictor.save(model, file, data.class_names)
    if keras.backend.backend() == "tensorflow":
        exported = predictor.run_exported(
            predictor.export(predictor.load(file), tmp_path / "exported"), data.test.images
        )
        np.testing.assert_allclose(exported, evaluation.logits(model, data.test.images), atol=1e-3)
    assert cli.main(["predict", str(file), str(album / "red" / "printed.jpg"), "--top", "1"]) == 0
    assert "red" in capsys.readouterr().out.splitlines()[1]
    made = serving.make_server(predictor.load(tmp_path / "m.keras"), 0, "m.keras")
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    shown = Open(browser, made)
    for name in ("red", "blue"):
        shown.page.set_input_files("#file", str(album / name / "0.png"))
        shown.status(f"0.png: {name}")
    shown.page.evaluate(GIVE, ["drop", [list((album / "red" / "1.png").read_bytes())]])
    shown.status("drop0.png: red")
    shown.context.close()
    made.shutdown()
    made.server_close()
    assert picture_files.read(album / "red" / "0.png")[0].shape == (32, 32, 3)
