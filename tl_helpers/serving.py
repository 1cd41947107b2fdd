"""A small web page on this computer alone: drop a picture, see what the model says. ``python -m tl_helpers serve``."""

import base64
import hashlib
import json
import os
import re
import sys
import threading
import traceback
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tl_helpers import predictor
from tl_helpers.picture_files import PictureRefused

PAGE = Path(__file__).with_name("serving.html")
LOOPBACK = "127.0.0.1"
MOST_BYTES = 40 * 2**20  # a telephone's photo of 50 megapixels has 10 to 30 MB
ADVICE = "Save it smaller, or use python -m tl_helpers predict"
PATIENCE_SECONDS = 15.0
MOST_DRAINED = 2 * MOST_BYTES  # read and thrown away, so that a browser gets to see the refusal


def make_server(found: predictor.Predictor, port: int = 0, name: str = "model") -> ThreadingHTTPServer:
    """A server on the loopback address, ready for ``serve_forever``; no other computer reaches it.

    Whoever else is logged in on this computer may open the page as well, as long as it runs.
    It answers three requests: ``GET /`` (the page), ``GET /about`` (the model's classes) and ``POST /predict`` with one
    picture file as the body, at most ``MOST_BYTES``. Requests that name another host (DNS rebinding), or that a page
    from elsewhere sends, are refused.

    Args:
        found: the model that answers.
        port: 0 takes any free one; the server's ``server_port`` says which.
        name: shown on the page.
    Raises:
        ValueError: the port is taken or not allowed.
    """
    try:
        server = _Server((LOOPBACK, port), _Handler)
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"port {port} cannot be used ({error}). Choose another one with --port, or 0 for any"
        ) from error
    server.found, server.name, server.one_at_a_time = found, name, threading.Lock()
    server.page = PAGE.read_bytes()
    server.policy = _policy(server.page.decode("utf-8"))
    return server


def serve(path: Path | str, port: int = 8765) -> None:
    """Load a model and serve its page until Ctrl-C."""
    path = Path(path)
    server = make_server(predictor.load(path), port, path.name)
    address = f"http://{LOOPBACK}:{server.server_port}/"
    print(f"{path.name}: open {address} in a browser on this computer (stop with Ctrl-C)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print("\nstopped")
    finally:
        server.server_close()


def _policy(page: str) -> str:
    """The page's Content-Security-Policy: its own style and script, requests to itself, nothing else."""

    def digest(tag: str) -> str:
        inner = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.S).group(1)
        return "'sha256-" + base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode() + "'"

    return (
        f"default-src 'none'; script-src {digest('script')}; style-src {digest('style')}; img-src blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _own_names(port: int) -> set[str]:
    """What a browser on this computer may call the server; it leaves port 80 out."""
    names = {LOOPBACK, "localhost", "[::1]"}
    return {f"{name}:{port}" for name in names} | (names if port == 80 else set())


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Elsewhere a port is free again at once after Ctrl-C; on Windows reuse would let two programs share it.
    allow_reuse_address = os.name != "nt"

    def handle_error(self, request, client_address):
        """A reader who hangs up is no fault worth a traceback; anything else is."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server_version, sys_version = "tl_helpers", ""
    timeout = PATIENCE_SECONDS

    def do_GET(self):
        if not self._is_ours():
            return
        path = self.path.split("?")[0]
        if path == "/":
            self._send(HTTPStatus.OK, self.server.page, "text/html; charset=utf-8")
        elif path == "/about":
            known = {"model": self.server.name, "classes": self.server.found.class_names}
            self._send_json(HTTPStatus.OK, {**known, "most_bytes": MOST_BYTES, "advice": ADVICE})
        elif path == "/favicon.ico":
            self._send(HTTPStatus.NO_CONTENT, b"", "image/x-icon")
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page; the only one is /")

    do_HEAD = do_GET

    def do_POST(self):
        if not self._is_ours():
            return
        if self.path != "/predict":
            self._refuse(HTTPStatus.NOT_FOUND, "pictures are sent to /predict")
            return
        body = self._body()
        if body is None:
            return
        try:
            with self.server.one_at_a_time:
                answer = self.server.found.predict(body, top=5)
        except PictureRefused as error:
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, str(error))
        except predictor.Diverged as error:
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        except Exception as error:  # the model's own fault, which the page would take for a server that is gone
            traceback.print_exc()
            told = f"the model failed ({type(error).__name__}); the terminal in which it runs says why"
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, told)
        else:
            self._send_json(HTTPStatus.OK, answer)

    def _is_ours(self) -> bool:
        """Whether the request is for this address and comes from this page, or from no page at all."""
        port = self.server.server_port
        hosts = _own_names(port)
        origin = self.headers.get("Origin")
        if self.headers.get("Host", "").lower() not in hosts:
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, f"open this page as http://{LOOPBACK}:{port}/")
        elif origin is not None and origin.lower() not in {f"http://{host}" for host in hosts}:
            self._refuse(HTTPStatus.FORBIDDEN, "a page from elsewhere may not use this one")
        else:
            return True
        return False

    def _body(self) -> bytes | None:
        """The uploaded bytes; None when they were refused."""
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not re.fullmatch(r"[0-9]{1,15}", length):
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "send the picture with its length (Content-Length)")
            return None
        if int(length) > MOST_BYTES:
            self._drain(min(int(length), MOST_DRAINED))
            self._refuse(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the file has {int(length) / 2**20:.1f} MB; at most {MOST_BYTES // 2**20} MB are taken. {ADVICE}",
            )
            return None
        try:
            held = self.rfile.read(int(length))
        except TimeoutError:
            held = b""
        if len(held) < int(length):
            self._refuse(HTTPStatus.BAD_REQUEST, "the upload broke off")
            return None
        return held

    def _drain(self, count: int) -> None:
        try:
            while count > 0 and (got := self.rfile.read(min(count, 2**16))):
                count -= len(got)
        except TimeoutError:
            pass

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._send_json(status, {"error": why})

    def _send_json(self, status: HTTPStatus, content: dict) -> None:
        self._send(status, json.dumps(content, ensure_ascii=False).encode(), "application/json; charset=utf-8")

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind, "Content-Length": str(len(body)), "Content-Security-Policy": self.server.policy,
            "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "same-origin", "Connection": "close",
        }  # fmt: skip
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args):
        """Nothing: the page itself says what happens."""
