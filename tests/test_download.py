"""Downloads from a server on this machine that misbehaves, and archives that are meant to hurt."""

import hashlib
import io
import re
import stat
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from umtlib.corpora import download, nsynth
from umtlib.errors import CorpusError

DATA = np.random.default_rng(0).bytes(300_000)
MD5 = f"md5:{hashlib.md5(DATA).hexdigest()}"


class Handler(BaseHTTPRequestHandler):
    """The first part of the path says how to behave; each request is counted."""

    files = {"data.bin": DATA}
    requests: list = []

    def do_GET(self):
        behaviour, name = self.path.strip("/").split("/", 1)
        first = behaviour not in dict(self.requests)
        self.requests.append((behaviour, self.headers["Range"]))
        data, start = self.files[name], int(self.headers["Range"][6:-1])
        if behaviour == "missing":
            return self.send_error(404)
        if behaviour == "html":
            return self.answer(200, b"log in first", {"Content-Type": "text/html; charset=utf-8"})
        if behaviour == "wrong":
            return self.answer(200, b"x" * 1000, {})
        start = 0 if behaviour == "norange" else start
        if start >= len(data):
            return self.send_error(416)
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        headers["Content-Length"] = str(len(data) - start)
        breaks = behaviour == "dead" or (behaviour in ("drop", "norange") and first)
        end = start + 100_000 if breaks else None
        return self.answer(206 if start else 200, data[start:end], headers)

    def answer(self, status, body, headers):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Handler, "requests", [])
    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{web.server_port}"
    web.shutdown()
    thread.join()
    web.server_close()


def left(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def obtain(server, monkeypatch, tmp_path):
    """Obtain a file, or an archive, from a server that behaves so; give the folder."""

    def run(behaviour, name="data.bin", data=DATA, checksum=MD5, progress=None):
        monkeypatch.setattr(Handler, "files", {name: data})
        monkeypatch.setattr(download, "FILES", {"out": (f"{server}/{behaviour}/{name}", checksum)})
        download.obtain(["out"], tmp_path, progress)
        return tmp_path

    return run


@pytest.mark.parametrize("behaviour, asked", [
    ("ok", [0]), ("drop", [0, 65536]), ("norange", [0, 65536]),
])  # fmt: skip
def test_a_file_arrives_whole(obtain, behaviour, asked):
    told = []
    for _ in range(2):  # the second time it is there
        folder = obtain(behaviour, progress=lambda *line: told.append(line))
        assert (folder / "data.bin").read_bytes() == DATA and left(folder) == ["data.bin"]
        assert [range_ for _, range_ in Handler.requests] == [f"bytes={first}-" for first in asked]
    assert told[-1] == ("data.bin", len(DATA), len(DATA))


@pytest.mark.parametrize("behaviour, words", [
    ("missing", "404"), ("html", "a web page"), ("wrong", "hash"),
])  # fmt: skip
def test_what_is_not_the_file_never_enters_the_cache(obtain, tmp_path, behaviour, words):
    with pytest.raises(CorpusError, match=words):
        obtain(behaviour)
    assert len(Handler.requests) == 1 + download.RETRIES
    assert left(tmp_path) == []


def test_an_interrupted_download_goes_on_in_the_next_run(obtain, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "RETRIES", 0)
    for _ in range(2):
        with pytest.raises(CorpusError, match="goes on from there"):
            obtain("dead")
    assert left(tmp_path) == ["data.bin.part"]
    assert (tmp_path / "data.bin.part").stat().st_size == 2 * 65_536
    assert (obtain("ok") / "data.bin").read_bytes() == DATA
    assert Handler.requests[-1] == ("ok", "bytes=131072-") and left(tmp_path) == ["data.bin"]


@pytest.mark.parametrize("part", [DATA, b"x" * 400_000])
def test_a_part_that_is_whole_or_too_long(obtain, tmp_path, part):
    (tmp_path / "data.bin.part").write_bytes(part)
    assert (obtain("ok") / "data.bin").read_bytes() == DATA and left(tmp_path) == ["data.bin"]


def entry(name, data=b"hello", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def archive(*entries):
    """Arguments of `obtain`."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return "a.tar.gz", file.getvalue(), f"md5:{hashlib.md5(file.getvalue()).hexdigest()}"


LINK = {"type": tarfile.SYMTYPE, "linkname": "/etc"}


@pytest.mark.parametrize("given", [
    *(archive(entry("out/innocent"), *entries) for entries in (
        [entry("../evil")], [entry("a/../../evil")], [entry("a", b"", **LINK), entry("a/evil")],
        [entry("a", b"", type=tarfile.LNKTYPE, linkname="../../x")],
        [entry("a", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
        [entry("a"), entry("a/b")])),
    ("a.tar.gz", DATA, MD5), archive(entry("other/a")),
])  # fmt: skip
def test_an_archive_that_is_hostile_or_another_is_refused(obtain, tmp_path, given):
    with pytest.raises(CorpusError, match="a.tar.gz cannot be unpacked"):
        obtain("ok", *given)
    assert left(tmp_path) == ["a.tar.gz"] and not (tmp_path / "out").exists()


def test_a_good_archive_is_unpacked_also_after_a_run_that_was_killed(obtain, tmp_path):
    (tmp_path / ".out.part/out").mkdir(parents=True)
    (tmp_path / ".out.part/out/torn.wav").write_bytes(b"x")
    whole = entry("./out/a.wav", DATA), entry("/out/b/c.wav", mode=0o4777)
    obtain("drop", *archive(*whole))
    assert left(tmp_path) == ["a.tar.gz", "a.wav", "c.wav"]
    assert (tmp_path / "out/a.wav").read_bytes() == DATA
    assert not (tmp_path / "out/b/c.wav").stat().st_mode & stat.S_ISUID
    asked = len(Handler.requests)
    (tmp_path / ".downloads/a.tar.gz").unlink()  # its owner needed the space
    obtain("drop", *archive(*whole))
    assert len(Handler.requests) == asked


def test_the_published_files():
    assert {*nsynth.SPLITS, "musicnet", "musicnet-metadata"} == set(download.FILES)
    for url, checksum in download.FILES.values():
        assert url.split("/")[2] in ("storage.googleapis.com", "zenodo.org")
        assert url.startswith("https://") and re.fullmatch("md5:[0-9a-f]{32}", checksum)
