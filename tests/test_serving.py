"""The local page: what it answers, what it refuses, and that people can use it, in a browser cut off from the net."""

import contextlib
import http.client
import io
import json
import os
import socket
import threading
import time

import keras
import numpy as np
import pytest
from local_predictor import BLUE, RED, Colours, server
from PIL import Image

from tl_helpers import __main__ as cli
from tl_helpers import predictor, serving

__all__ = ["server"]  # a fixture


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
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    status, _, about = ask(server, path="/about")
    assert about == {
        "model": "colours.keras",
        "classes": ["blue", "<b>röd</b>", "none"],
        "most_bytes": serving.MOST_BYTES,
        "advice": serving.ADVICE,
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


@contextlib.contextmanager
def no_patience_with_bodies():
    """The server waits a fifth of a second for a body that does not come, but for a request as long as ever.

    On a busy machine a good request may begin late as well.
    """
    whole = serving._Handler._body

    def body(handler):
        handler.connection.settimeout(0.2)
        return whole(handler)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving._Handler, "_body", body)
        yield


def test_too_large_uploads_are_refused(server, monkeypatch):
    monkeypatch.setattr(serving, "MOST_BYTES", 1000)
    monkeypatch.setattr(serving, "MOST_DRAINED", 4000)
    status, _, answer = ask(server, "POST", "/predict", bytes(3000))
    assert status == 413 and "at most" in answer["error"] and answer["error"].endswith(serving.ADVICE)
    with no_patience_with_bodies():
        assert ask(server, "POST", "/predict", bytes(10), Content_Length="99999999999999")[0] == 413


def test_uploads_without_a_length_are_refused(server):
    assert ask(server, "POST", "/predict")[0] == 411
    assert ask(server, "POST", "/predict", Content_Length="-5")[0] == 411
    assert ask(server, "POST", "/predict", Content_Length="1", Transfer_Encoding="chunked", body=b"x")[0] == 411


def test_an_upload_that_breaks_off_is_no_fault(server, monkeypatch, capfd):
    with no_patience_with_bodies():
        status, _, answer = ask(server, "POST", "/predict", RED[:20], Content_Length=str(len(RED)))
    assert status == 400 and "broke off" in answer["error"]
    with socket.create_connection(("127.0.0.1", server.server_port)) as silent:
        silent.sendall(b"POST /predict HTTP/1.1\r\n")
    with monkeypatch.context() as patch:
        patch.setattr(serving._Handler, "timeout", 0.2)
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as silent:
            silent.sendall(b"POST /predict HTTP/1.1\r\n")
            assert silent.recv(1) == b"", "the server hangs up"
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


def test_at_port_80_a_browser_names_no_port():
    assert {"127.0.0.1", "localhost", "127.0.0.1:80"} <= serving._own_names(80)
    assert serving._own_names(8765) == {"127.0.0.1:8765", "localhost:8765", "[::1]:8765"}


def test_requests_from_another_page_are_refused(server):
    assert ask(server, "POST", "/predict", RED, Origin="https://evil.example")[0] == 403
    assert ask(server, "POST", "/predict", RED, Origin="null")[0] == 403
    assert ask(server, "POST", "/predict", RED, Origin=f"http://localhost:{server.server_port}")[0] == 200
    assert ask(server, Host=f"LOCALHOST:{server.server_port}")[0] == 200


@pytest.mark.skipif(os.name == "nt", reason="there two programs could share the port")
def test_the_port_is_free_again_at_once(server):
    own = serving.make_server(server.found)
    threading.Thread(target=own.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    assert ask(own)[0] == 200  # the server hangs up first: the system remembers the connection for a minute
    own.shutdown()
    own.server_close()
    serving.make_server(server.found, own.server_port).server_close()


def test_it_listens_on_this_computer_alone(server):
    assert server.server_address[0] == "127.0.0.1"


def test_a_model_that_fails_is_said_on_the_page_and_in_the_terminal(server, monkeypatch, capfd):
    def broken(*_, **__):
        raise ZeroDivisionError("inside the model")

    monkeypatch.setattr(predictor.Predictor, "predict", broken)
    status, _, answer = ask(server, "POST", "/predict", RED)
    assert status == 500 and "the model failed (ZeroDivisionError)" in answer["error"]
    assert "inside the model" in capfd.readouterr().err


def test_a_diverged_model_is_said_on_the_page(server, monkeypatch, capfd):
    monkeypatch.setattr(Colours, "predict_on_batch", lambda model, images: np.full((len(images), 3), np.nan))
    status, _, answer = ask(server, "POST", "/predict", RED)
    assert status == 500 and answer["error"].startswith("the model gives no numbers (NaN): its training diverged")
    assert "Traceback" not in capfd.readouterr().err


def test_pictures_at_the_same_time_do_not_mix(server, monkeypatch):
    """The stand-in keeps something of a call while it works, as a model of Keras may."""
    said, answers = {}, Colours.predict_on_batch

    def slowly(model, images):
        model.held = images
        time.sleep(0.02)
        return answers(model, model.held)

    monkeypatch.setattr(Colours, "predict_on_batch", slowly)

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


def test_a_large_photo_of_a_telephone_is_taken(server):
    noise = np.random.default_rng(0).integers(0, 256, (1800, 2400, 3)).astype(np.uint8)
    held = io.BytesIO()
    Image.fromarray(noise).save(held, "PNG", compress_level=0)
    assert 12e6 < len(held.getvalue()) < serving.MOST_BYTES
    assert ask(server, "POST", "/predict", held.getvalue())[0] == 200


def test_serve_says_where_and_stops(tmp_path, capsys, monkeypatch):
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D()])
    predictor.save(model, tmp_path / "m.keras", ["r", "g", "b"], pixels=8)

    def interrupted(server, *_):
        raise KeyboardInterrupt

    monkeypatch.setattr(serving._Server, "serve_forever", interrupted)
    assert cli.main(["serve", str(tmp_path / "m.keras"), "--port", "0"]) == 0
    told = capsys.readouterr().out
    assert "m.keras: open http://127.0.0.1:" in told and "stopped" in told
