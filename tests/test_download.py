"""Downloads from a server on this machine that misbehaves, and archives that are meant to hurt."""

import gzip
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
SHA = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
MD5 = f"md5:{hashlib.md5(DATA).hexdigest()}"


class Handler(BaseHTTPRequestHandler):
    """The first part of the path says how to behave; each request is counted."""

    files = {"data.bin": DATA}
    requests: list = []

    def do_GET(self):
        behaviour, name = self.path.strip("/").split("/", 1)
        self.requests.append((behaviour, self.headers.get("Range")))
        data = self.files[name]
        first = sum(b == behaviour for b, _ in self.requests) == 1
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        if behaviour == "missing":
            return self.send_error(404)
        if behaviour == "html":
            return self.answer(200, b"log in first", {"Content-Type": "text/html; charset=utf-8"})
        if behaviour == "wrong":
            return self.answer(200, b"x" * 1000, {})
        if start and behaviour == "norange":
            start = 0
        if start >= len(data):
            return self.send_error(416)
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        headers["Content-Length"] = str(len(data) - start)
        breaks = behaviour == "dead" or (behaviour in ("drop", "norange") and first)
        body = data[start : start + 100_000] if breaks else data[start:]
        return self.answer(206 if start else 200, body, headers)

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


@pytest.mark.parametrize("behaviour, asked", [
    ("ok", [None]), ("drop", [None, "bytes=65536-"]), ("norange", [None, "bytes=65536-"]),
])  # fmt: skip
@pytest.mark.parametrize("checksum", [SHA, MD5])
def test_a_file_arrives_whole(server, tmp_path, behaviour, asked, checksum):
    told = []
    path = download.fetch(f"{server}/{behaviour}/data.bin", tmp_path / "c", checksum,
                          lambda *line: told.append(line))  # fmt: skip
    assert path.read_bytes() == DATA and left(tmp_path) == ["data.bin"]
    assert [range_ for _, range_ in Handler.requests] == asked
    assert told[-1] == ("data.bin", len(DATA), len(DATA))
    assert download.fetch(f"{server}/{behaviour}/data.bin", tmp_path / "c", checksum) == path
    assert len(Handler.requests) == len(asked)  # the second time it comes from the cache


@pytest.mark.parametrize("behaviour, words", [
    ("missing", "404"), ("html", "a web page"), ("wrong", "hash"),
])  # fmt: skip
def test_what_is_not_the_file_never_enters_the_cache(server, tmp_path, behaviour, words):
    with pytest.raises(CorpusError, match=words):
        download.fetch(f"{server}/{behaviour}/data.bin", tmp_path / "c", SHA)
    assert len(Handler.requests) == 1 + download.RETRIES
    assert left(tmp_path) == []


def test_an_interrupted_download_goes_on_in_the_next_run(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "RETRIES", 0)
    for _ in range(2):
        with pytest.raises(CorpusError, match="goes on from there"):
            download.fetch(f"{server}/dead/data.bin", tmp_path, SHA)
    assert left(tmp_path) == ["data.bin.part"]
    assert (tmp_path / "data.bin.part").stat().st_size == 2 * 65_536
    assert download.fetch(f"{server}/ok/data.bin", tmp_path, SHA).read_bytes() == DATA
    assert Handler.requests[-1] == ("ok", "bytes=131072-") and left(tmp_path) == ["data.bin"]


def test_a_part_that_is_too_long_is_given_up(server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(b"x" * 400_000)
    assert download.fetch(f"{server}/ok/data.bin", tmp_path, SHA).read_bytes() == DATA


def entry(name, data=b"hello", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def make_tar(path, *entries):
    with tarfile.open(path, "w:gz") as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return path


LINK = {"type": tarfile.SYMTYPE, "linkname": "/etc"}
HOSTILE_TARS = {
    "up": [entry("../evil")],
    "up inside": [entry("a/../../evil")],
    "link": [entry("a", b"", **LINK)],
    "through a link": [entry("a", b"", **LINK), entry("a/evil")],
    "hard link": [entry("a", b"", type=tarfile.LNKTYPE, linkname="../../x")],
    "device": [entry("a", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
    "pipe": [entry("a", b"", type=tarfile.FIFOTYPE)],
    "long": [entry("a" * 501)],
    "file as folder": [entry("a"), entry("a/b")],
    "folder as file": [entry("a/b"), entry("a")],
    "bomb": [entry("zeros", bytes(2_000_000))],
    "many": [entry(f"f{n}", b"") for n in range(30)],
    "a folder outside": [entry("../evil", b"", type=tarfile.DIRTYPE)],
    "many folders": [entry(f"f{n}", b"", type=tarfile.DIRTYPE) for n in range(30)],
}


@pytest.mark.parametrize("kind", HOSTILE_TARS)
def test_a_hostile_tar_is_refused(tmp_path, kind):
    (tmp_path / "home").mkdir()
    archive = make_tar(tmp_path / "a.tar.gz", entry("out/innocent"), *HOSTILE_TARS[kind])
    with pytest.raises(CorpusError, match="a.tar.gz") as caught:
        download.unpack(archive, tmp_path / "home/out", most_bytes=1_000_000, most_files=25)
    assert "\n" not in str(caught.value)
    assert left(tmp_path) == ["a.tar.gz"] and not list((tmp_path / "home").iterdir())


@pytest.mark.parametrize("damage", ["cut", "empty", "html", "cut tar", "another folder"])
def test_a_damaged_archive_is_refused(tmp_path, damage):
    path = make_tar(tmp_path / "a.tar.gz", entry("out/a", DATA))
    whole = path.read_bytes()
    path.write_bytes({
        "cut": whole[: len(whole) // 2], "empty": b"", "html": b"<html>" * 100,
        "cut tar": gzip.compress(gzip.decompress(whole)[:100_000]),
        "another folder": make_tar(tmp_path / "a.tar.gz", entry("other/a")).read_bytes(),
    }[damage])  # fmt: skip
    with pytest.raises(CorpusError, match="a.tar.gz"):
        download.unpack(path, tmp_path / "out")
    assert left(tmp_path) == ["a.tar.gz"] and not (tmp_path / "out").exists()


def test_a_good_archive_is_unpacked_also_after_a_run_that_was_killed(tmp_path):
    (tmp_path / ".out.part/out").mkdir(parents=True)
    (tmp_path / ".out.part/out/torn.wav").write_bytes(b"x")
    whole = entry("./out/a.wav", DATA), entry("/out/b/c.wav", mode=0o4777)
    download.unpack(make_tar(tmp_path / "a", *whole), tmp_path / "out")
    assert (tmp_path / "out/a.wav").read_bytes() == DATA
    assert left(tmp_path) == ["a", "a.wav", "c.wav"]
    assert not (tmp_path / "out/b/c.wav").stat().st_mode & stat.S_ISUID


def test_a_data_set_is_obtained_in_its_layout(server, tmp_path, monkeypatch):
    folder = entry("nsynth-test", b"", type=tarfile.DIRTYPE)
    tar = make_tar(tmp_path / "x", folder, entry("nsynth-test/examples.json", b"{}")).read_bytes()
    csv = b"id,composer\n"
    monkeypatch.setattr(Handler, "files", {"n.tar.gz": tar, "m.csv": csv, "d.tar.gz": DATA})
    sums = {data: f"md5:{hashlib.md5(data).hexdigest()}" for data in (tar, csv, DATA)}
    monkeypatch.setattr(download, "FILES", {
        "nsynth-test": (f"{server}/drop/n.tar.gz", sums[tar]),
        "metadata": (f"{server}/ok/m.csv", sums[csv]),
        "damaged": (f"{server}/ok/d.tar.gz", sums[DATA]),
        "another": (f"{server}/ok/d.tar.gz", sums[tar]),
    })  # fmt: skip
    root = tmp_path / "root"
    download.obtain(["nsynth-test", "metadata"], root)
    assert (root / "nsynth-test/examples.json").read_text() == "{}"
    assert (root / "m.csv").read_bytes() == csv
    asked = len(Handler.requests)
    (root / ".downloads/n.tar.gz").unlink()  # its owner needed the space
    (root / "m.csv").write_bytes(b"id,composer\n1,Bach\n")  # and has added a line
    download.obtain(["nsynth-test", "metadata"], root)
    assert len(Handler.requests) == asked
    for name, words in (("damaged", "cannot be unpacked"), ("another", "hash")):
        with pytest.raises(CorpusError, match=words):
            download.obtain([name], root)
    assert left(root) == ["d.tar.gz", "examples.json", "m.csv"]


def test_the_published_files():
    assert {*nsynth.SPLITS, "musicnet", "musicnet-metadata"} == set(download.FILES)
    for url, checksum in download.FILES.values():
        assert url.split("/")[2] in ("storage.googleapis.com", "zenodo.org")
        assert url.startswith("https://") and re.fullmatch("md5:[0-9a-f]{32}", checksum)
