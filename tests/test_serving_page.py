"""The page that takes pictures, in a browser: files chosen, dropped and pasted; keyboard, screen reader, colours, telephone."""

import threading

import numpy as np
import pytest
from local_predictor import BLUE, RED, Colours, server
from PIL import Image

from tl_helpers import picture_files, predictor, serving

__all__ = ["server"]  # a fixture


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
def test_bad_and_large_files_are_refused_on_the_page(opened, monkeypatch):
    page = opened.page
    page.set_input_files("#file", upload("notes.png", b"words"))
    assert opened.status("refused") == "notes.png was refused: not a picture in a known format"
    page.set_input_files("#file", upload("big.png", bytes(serving.MOST_BYTES + 1)))
    assert "at most 10.0 MB" in opened.status("big.png was refused")
    assert page.locator("#results .error").count() == 2
    page.set_input_files("#file", upload("good.png", BLUE))
    opened.status("good.png: blue")


@pytest.mark.browser
def test_dropped_and_pasted_files_are_answered_in_turn(opened):
    give = """([kind, bodies]) => {
        const held = new DataTransfer();
        bodies.forEach((body, i) => held.items.add(new File([Uint8Array.from(body)], `${kind}${i}.png`, {type: "image/png"})));
        const event = kind === "drop" ? new DragEvent("drop", {dataTransfer: held, bubbles: true, cancelable: true})
                                      : new ClipboardEvent("paste", {clipboardData: held, bubbles: true});
        document.getElementById("drop").dispatchEvent(event);
    }"""
    opened.page.evaluate(give, ["drop", [list(RED), list(BLUE)]])
    opened.status("drop1.png: blue")
    opened.page.evaluate(give, ["paste", [list(RED)]])
    opened.status("paste0.png: <b>röd</b>")
    assert opened.page.locator("#results h2").all_inner_texts() == ["paste0.png", "drop1.png", "drop0.png"]


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


@pytest.mark.browser
def test_from_a_folder_to_the_page(browser, tmp_path):
    """Pictures made here, loaded, learnt from with VGG16, saved, loaded anew, and asked for on the page."""
    from tl_helpers import backbones, features, models, pictures, recipes, runtime, training

    rng = np.random.default_rng(0)
    for name, rgb in {"red": (200, 40, 40), "blue": (40, 40, 200)}.items():
        (tmp_path / name).mkdir()
        for i in range(10):
            noise = rng.integers(-40, 40, (48, 40, 3))
            Image.fromarray(np.uint8(np.clip(rgb + noise, 0, 255))).save(tmp_path / name / f"{i}.png")
    data, seen = pictures.load_folder(tmp_path, progress=False)
    assert seen.used == {"blue": 10, "red": 10}
    runtime.set_seed(0)
    backbone = backbones.vgg16(weights="tiny-imagenet")
    kept = features.extract(backbone, data, progress=False)
    model = models.transfer_model(backbone, 2)
    head = models.head((512,), 2)
    recipe = recipes.Recipe(epochs=30, batch_size=16, learning_rate=1e-2)
    training.fit(head, kept, recipe, experiment="test-own-pictures", arm="head", seed=0, progress=False)
    model.get_layer("head").set_weights(head.get_layer("head").get_weights())
    predictor.save(model, tmp_path / "m.keras", data.class_names)
    made = serving.make_server(predictor.load(tmp_path / "m.keras"), 0, "m.keras")
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    shown = Open(browser, made)
    for name in ("red", "blue"):
        shown.page.set_input_files("#file", str(tmp_path / name / "0.png"))
        shown.status(f"0.png: {name}")
    shown.context.close()
    made.shutdown()
    made.server_close()
    assert picture_files.read(tmp_path / "red" / "0.png")[0].shape == (32, 32, 3)
