"""Downloads against a local server: whatever goes wrong, there is the whole right file or none, and one clear error."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple

import pytest
from local_server import answer, sha256

from tl_helpers import downloads, whole_files
from tl_helpers.downloads import DataRefused, DataUnavailable

BODY = bytes(range(256)) * 1000
HASH = sha256(BODY)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and no folder for files placed by hand."""
    monkeypatch.delenv("TL_DATA", raising=False)
    monkeypatch.setenv("TL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def by_hand(tmp_path, monkeypatch, cache):
    folder = tmp_path / "by hand"
    folder.mkdir()
    monkeypatch.setenv("TL_DATA", str(folder))
    return folder


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def fetch(server, *paths, **more):
    return downloads.fetch("a.bin", [server.url + path for path in paths], HASH, progress=False, **more)


def start(server, path, **more):
    """The same download in another process."""
    code = f"from tl_helpers import downloads; downloads.fetch('a.bin', ['{server.url}{path}'], '{HASH}')"
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, **more)


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "the other process did not get that far"
        time.sleep(0.02)


def test_a_file_is_downloaded_once_and_nothing_else_is_left(server, cache, capfd):
    server.pages["/a"] = BODY
    path = downloads.fetch("a.bin", [server.url + "/a"], HASH, megabytes=0.3, terms="for research only")
    assert path.read_bytes() == BODY
    assert fetch(server, "/a") == path
    assert server.asked == ["/a"]
    assert files(cache) == ["downloads/a.bin"]
    told = capfd.readouterr()
    assert "for research only" in told.err and "a.bin" in told.err and told.out == ""


def test_mirrors_are_tried_in_turn_until_one_delivers(server, cache):
    server.pages |= {"/wrong": b"<html>log in first</html>", "/right": BODY, "/more": BODY}
    assert fetch(server, "/missing", "/wrong", "/right", "/more").read_bytes() == BODY
    assert server.asked == ["/missing", "/wrong", "/right"]
    assert files(cache) == ["downloads/a.bin"]


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (lambda handler: answer(handler, BODY[:100_000], len(BODY)), "broke off"),
        (lambda handler: answer(handler, BODY[:100_000], None), "wrong content"),
        (BODY[:-1] + b"!", "wrong content"),
        (b"", "wrong content"),
        (lambda handler: handler.send_error(503), "HTTP 503"),
        (lambda handler: handler.connection.close(), "no connection"),
    ],
    ids=["cut short", "cut short without length", "corrupted", "empty", "server error", "hangs up"],
)
def test_a_bad_download_is_refused_and_leaves_nothing(server, cache, page, reason):
    server.pages["/a"] = page
    with pytest.raises(DataUnavailable, match=reason):
        fetch(server, "/a")
    assert files(cache) == []


def test_a_silent_server_is_given_up(server, cache, monkeypatch):
    over, tried = threading.Event(), downloads._try

    def patient_with_others(url, *more):
        """A busy machine may keep the good mirror waiting too."""
        monkeypatch.setattr(downloads, "SILENCE_SECONDS", 0.2 if url.endswith("/a") else 30.0)
        return tried(url, *more)

    monkeypatch.setattr(downloads, "_try", patient_with_others)

    def begin_and_stop(handler):
        answer(handler, BODY[:1000], len(BODY))
        over.wait(10)

    server.pages |= {"/a": begin_and_stop, "/b": BODY}
    with pytest.raises(DataUnavailable, match="silent"):
        fetch(server, "/a")
    assert fetch(server, "/a", "/b").read_bytes() == BODY
    over.set()


def test_without_a_network_the_error_says_what_to_do(cache):
    urls = ["http://127.0.0.1:9/a.bin", "http://127.0.0.1:9/b/a.bin"]
    with pytest.raises(DataUnavailable) as caught:
        downloads.fetch("a.bin", urls, HASH, progress=False)
    told = str(caught.value)
    assert all(url in told for url in urls)
    assert "no connection" in told and HASH in told and "TL_DATA" in told and str(cache / "downloads") in told


def test_without_an_address_the_error_says_so(cache):
    with pytest.raises(DataUnavailable, match="no address"):
        downloads.fetch("a.bin", [], HASH)


def test_a_file_placed_by_hand_comes_first(server, by_hand, cache):
    (by_hand / "a.bin").write_bytes(BODY)
    assert fetch(server, "/a") == by_hand / "a.bin"
    assert server.asked == [] and not cache.exists()


@pytest.mark.parametrize("content", [BODY[:500], b"", BODY[::-1]], ids=["cut short", "empty", "other"])
def test_a_bad_file_placed_by_hand_is_refused_and_kept(server, by_hand, content):
    server.pages["/a"] = BODY
    (by_hand / "a.bin").write_bytes(content)
    with pytest.raises(DataRefused, match=f"Expected sha256 {HASH}. Received: {sha256(content)}"):
        fetch(server, "/a")
    assert server.asked == [] and (by_hand / "a.bin").read_bytes() == content


def test_a_data_folder_that_is_not_there_is_an_error(server, cache, monkeypatch, tmp_path):
    monkeypatch.setenv("TL_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="TL_DATA"):
        fetch(server, "/a")


def test_a_damaged_file_in_the_cache_is_replaced(server, cache):
    server.pages["/a"] = BODY
    fetch(server, "/a").write_bytes(BODY[:1000])
    assert downloads.find("a.bin", HASH) is None
    assert fetch(server, "/a").read_bytes() == BODY
    assert len(server.asked) == 2 and files(cache) == ["downloads/a.bin"]


def test_two_processes_at_once_download_once(server, cache):
    both = threading.Event()

    def slowly(handler):
        answer(handler, BODY[:1000], len(BODY))
        both.wait(20)
        handler.wfile.write(BODY[1000:])

    server.pages["/a"] = slowly
    first, second = start(server, "/a"), start(server, "/a")
    wait_for(lambda: server.asked)
    waiting = threading.Timer(0.5, both.set)  # time for the other to arrive; correct whenever it does
    waiting.start()
    results = [process.communicate(timeout=30) for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], results
    assert server.asked == ["/a"] and files(cache) == ["downloads/a.bin"]


@pytest.mark.skipif(os.name == "nt", reason="signals as on Unix")
def test_what_a_killed_process_left_is_removed(server, cache):
    over = threading.Event()

    def half(handler):
        answer(handler, BODY[:100_000], len(BODY))
        over.wait(20)

    server.pages |= {"/half": half, "/a": BODY}
    process = start(server, "/half")
    wait_for(lambda: any(path.stat().st_size >= 65_536 for path in cache.rglob("*.part")))
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    over.set()
    assert not (cache / "downloads" / "a.bin").exists()
    assert fetch(server, "/a").read_bytes() == BODY
    assert files(cache) == ["downloads/a.bin"]


def test_an_interruption_leaves_nothing(server, cache, monkeypatch):
    import pooch

    def interrupted(self, url, output_file, pooch):
        output_file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(server, "/a")
    assert files(cache) == []


@pytest.mark.skipif(os.name == "nt", reason="file size limits as on Unix")
def test_a_disk_that_fills_up_in_mid_write_leaves_nothing(server, cache):
    import resource

    server.pages["/a"] = BODY
    process = start(server, "/a", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, 70_000)))
    told = process.communicate(timeout=30)[1]
    assert process.returncode == 1 and "is full" in told and "TL_CACHE" in told
    assert files(cache) == []


def test_too_little_room_is_noticed_beforehand(server, cache, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(1000))
    with pytest.raises(DataUnavailable, match="a.bin needs 170 MB, and the cache folder .* is full"):
        fetch(server, "/a", megabytes=170)
    assert server.asked == [] and files(cache) == []


@pytest.mark.parametrize("reason", ["a file", "read-only"])
def test_a_cache_that_cannot_be_written_gives_one_clear_error(server, cache, monkeypatch, reason):
    server.pages["/a"] = BODY
    if reason == "a file":
        cache.write_text("not a folder")
    else:  # the tests may run as root, whom permissions do not stop

        def refuse(*_, **__):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(DataUnavailable, match="cannot be written .*TL_CACHE"):
        fetch(server, "/a")
    assert server.asked == []


def test_a_read_only_cache_that_holds_the_file_is_enough(server, cache, monkeypatch):
    server.pages["/a"] = BODY
    path = fetch(server, "/a")
    path.chmod(0o444)
    path.parent.chmod(0o555)
    try:
        assert fetch(server, "/a") == path and len(server.asked) == 1
    finally:
        path.parent.chmod(0o755)


def test_a_lock_is_held_by_one_at_a_time(tmp_path):
    inside, most = [], []

    def work():
        with whole_files.alone(tmp_path / "x") as held:
            assert held
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert most == [1] * 8 and files(tmp_path) == []
