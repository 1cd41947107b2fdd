"""The local page: what it answers, what it refuses, and that people can use it, in a browser cut off from the net."""

import http.client
import io
import json
import socket
import threading

import keras
import numpy as np
import pytest
from PIL import Image

from tl_helpers import __main__ as cli
from tl_helpers import picture_files, predictor, serving


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


def ask(server, method="GET", path="/", body=None, **headers):
    """Status, headers and content of one request; a header of None is not sent."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    try:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.putrequest(method, path, skip_host="Host" in headers)
        if body is not None and "Content-Length" not in headers:
            headers["Content-Length"] = str(len(body))
        for name, value in headers.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        if "json" in answer.headers.get("Content-Type", ""):
            content = json.loads(content)
        return answer.status, answer.headers, content
    finally:
        connection.close()


def test_the_page_and_the_classes_are_served(server):
    status, headers, page = ask(server)
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8" and b"<h1>" in page
    assert (
        "default-src 'none'" in headers["Content-Security-Policy"]
        and "unsafe" not in headers["Content-Security-Policy"]
    )
    assert headers["X-Frame-Options"] == "DENY" and headers["Cache-Control"] == "no-store"
    status, _, about = ask(server, path="/about")
    assert about == {
        "model": "colours.keras",
        "classes": ["blue", "<b>röd</b>", "none"],
        "most_bytes": serving.MOST_BYTES,
    }
    assert ask(server, "HEAD")[2] == b"" and ask(server, path="/../../etc/passwd")[0] == 404


def test_a_picture_is_answered(server):
    status, _, answer = ask(server, "POST", "/predict", RED)
    assert status == 200 and answer["top"][0]["class"] == "<b>röd</b>" and len(answer["top"]) == 3
    assert ask(server, "POST", "/predict", BLUE)[2]["top"][0]["class"] == "blue"


@pytest.mark.parametrize("body, why", [(b"", "zero bytes"), (b"words", "not a picture"), (RED[:60], "damaged|picture")])
def test_bad_uploads_are_refused_with_a_reason(server, body, why):
    status, _, answer = ask(server, "POST", "/predict", body)
    assert status == 415
    assert any(part in answer["error"] for part in why.split("|")), answer


def test_too_large_uploads_are_refused(server, monkeypatch):
    monkeypatch.setattr(serving, "MOST_BYTES", 1000)
    monkeypatch.setattr(serving, "MOST_DRAINED", 4000)
    monkeypatch.setattr(serving._Handler, "timeout", 0.5)
    status, _, answer = ask(server, "POST", "/predict", bytes(3000))
    assert status == 413 and "at most" in answer["error"]
    status, *_ = ask(server, "POST", "/predict", bytes(10), Content_Length="99999999999999")[:1]
    assert status == 413


def test_uploads_without_a_length_are_refused(server):
    assert ask(server, "POST", "/predict")[0] == 411
    assert ask(server, "POST", "/predict", Content_Length="-5")[0] == 411
    assert ask(server, "POST", "/predict", Content_Length="1", Transfer_Encoding="chunked", body=b"x")[0] == 411


def test_an_upload_that_breaks_off_is_no_fault(server, monkeypatch, capfd):
    monkeypatch.setattr(serving._Handler, "timeout", 0.2)
    status, _, answer = ask(server, "POST", "/predict", RED[:20], Content_Length=str(len(RED)))
    assert status == 400 and "broke off" in answer["error"]
    with socket.create_connection(("127.0.0.1", server.server_port)) as silent:
        silent.sendall(b"POST /predict HTTP/1.1\r\n")
    assert ask(server, "POST", "/predict", RED)[0] == 200
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost.evil:{port}", None]
)
@pytest.mark.parametrize("method, path", [("GET", "/"), ("GET", "/about"), ("POST", "/predict")])
def test_another_host_name_is_refused(server, host, method, path):
    """DNS rebinding: a page of another site that has its own name lead to this computer."""
    host = host and host.format(port=server.server_port)
    status, _, answer = ask(server, method, path, RED if method == "POST" else None, Host=host)
    assert status == 421 and "open this page as http://127.0.0.1" in answer["error"]


def test_requests_from_another_page_are_refused(server):
    assert ask(server, "POST", "/predict", RED, Origin="https://evil.example")[0] == 403
    assert ask(server, "POST", "/predict", RED, Origin="null")[0] == 403
    assert ask(server, "POST", "/predict", RED, Origin=f"http://localhost:{server.server_port}")[0] == 200
    assert ask(server, Host=f"LOCALHOST:{server.server_port}")[0] == 200


def test_it_listens_on_this_computer_alone(server):
    assert server.server_address[0] == "127.0.0.1"


def test_pictures_at_the_same_time_do_not_mix(server):
    said = {}

    def send(i):
        said[i] = ask(server, "POST", "/predict", RED if i % 2 else BLUE)[2]["top"][0]["class"]

    threads = [threading.Thread(target=send, args=(i,)) for i in range(12)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert all(said[i] == ("<b>röd</b>" if i % 2 else "blue") for i in range(12))


def test_a_taken_port_and_a_missing_model_are_said(server, tmp_path, capsys):
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D()])
    predictor.save(model, tmp_path / "m.keras", ["r", "g", "b"], pixels=8)
    assert cli.main(["serve", str(tmp_path / "m.keras"), "--port", str(server.server_port)]) == 1
    assert f"port {server.server_port} cannot be used" in capsys.readouterr().err
    assert cli.main(["serve", str(tmp_path / "m.keras"), "--port", "99999"]) == 1
    assert cli.main(["serve", str(tmp_path / "none.keras")]) == 1
    assert "no such model file" in capsys.readouterr().err


def test_serve_says_where_and_stops(tmp_path, capsys, monkeypatch):
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D()])
    predictor.save(model, tmp_path / "m.keras", ["r", "g", "b"], pixels=8)

    def interrupted(server, *_):
        raise KeyboardInterrupt

    monkeypatch.setattr(serving._Server, "serve_forever", interrupted)
    assert cli.main(["serve", str(tmp_path / "m.keras"), "--port", "0"]) == 0
    told = capsys.readouterr().out
    assert "m.keras: open http://127.0.0.1:" in told and "stopped" in told


# --- in a browser


class Open:
    """The page in a browser, with every request and error."""

    def __init__(self, browser, server, scheme="light", width=900):
        self.base = f"http://127.0.0.1:{server.server_port}/"
        self.context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
        self.page = self.context.new_page()
        self.asked, self.errors = [], []
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
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
