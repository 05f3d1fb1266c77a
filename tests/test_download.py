"""Downloads from a server on this machine that misbehaves, and archives that are meant to hurt."""

import contextlib
import gzip
import hashlib
import io
import re
import stat
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event

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
        if behaviour == "drip":  # no read times out
            with contextlib.suppress(OSError):
                self.answer(200, data[:10], {"Content-Length": str(len(data))})
                while not Event().wait(0.02):
                    self.wfile.write(b"x")
            return None
        if behaviour == "html":
            return self.answer(200, b"log in first", {"Content-Type": "text/html; charset=utf-8"})
        if behaviour == "page":  # that does not say what it is
            return self.answer(200, b"\n<!DOCTYPE html><p>log in first", {})
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
@pytest.mark.parametrize("checksum", [SHA, MD5, None])
def test_a_file_arrives_whole(server, tmp_path, behaviour, asked, checksum):
    told = []
    path = download.fetch(f"{server}/{behaviour}/data.bin", tmp_path / "c", checksum,
                          lambda *line: told.append(line))  # fmt: skip
    assert path.read_bytes() == DATA and left(tmp_path) == ["data.bin"]
    assert [range_ for _, range_ in Handler.requests] == asked
    assert told[-1] == ("data.bin", len(DATA), len(DATA))
    assert download.fetch(f"{server}/{behaviour}/data.bin", tmp_path / "c", checksum) == path
    assert len(Handler.requests) == len(asked)  # the second time it comes from the cache


@pytest.mark.parametrize("behaviour, checksum, words", [
    ("missing", SHA, "404"), ("missing", None, "404"), ("html", SHA, "a web page"),
    ("html", None, "a web page"), ("page", SHA, "a web page"), ("page", None, "a web page"),
    ("wrong", SHA, "hash"), ("wrong", MD5, "hash"),
])  # fmt: skip
def test_what_is_not_the_file_never_enters_the_cache(server, tmp_path, behaviour, checksum, words):
    with pytest.raises(CorpusError, match=words):
        download.fetch(f"{server}/{behaviour}/data.bin", tmp_path / "c", checksum)
    assert len(Handler.requests) == 1 + download.RETRIES
    assert left(tmp_path) == []


def test_an_interrupted_download_goes_on_in_the_next_run(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "RETRIES", 0)
    for _ in range(2):
        with pytest.raises(CorpusError, match="try again later"):
            download.fetch(f"{server}/dead/data.bin", tmp_path, SHA)
    assert left(tmp_path) == ["data.bin.part"]
    assert (tmp_path / "data.bin.part").stat().st_size == 2 * 65_536
    assert download.fetch(f"{server}/ok/data.bin", tmp_path, SHA).read_bytes() == DATA
    assert Handler.requests[-1] == ("ok", "bytes=131072-") and left(tmp_path) == ["data.bin"]


def test_a_download_has_a_limit_in_all(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "LIMIT", 0.5)
    with pytest.raises(CorpusError, match=r"was not here after 0.5 s; call it again"):
        download.fetch(f"{server}/drip/data.bin", tmp_path, SHA)
    assert len(Handler.requests) == 1


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


def make_zip(path, *entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, data in entries:
            archive.writestr(info, data)
    return path


def zip_link():
    info = zipfile.ZipInfo("link")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info, b"/etc/passwd"


LINK = {"type": tarfile.SYMTYPE, "linkname": "/etc"}
HOSTILE_TARS = {
    "up": [entry("../evil")],
    "up inside": [entry("a/../../evil")],
    "absolute": [entry("/tmp/umtlib-evil")],
    "link": [entry("a", b"", **LINK)],
    "through a link": [entry("a", b"", **LINK), entry("a/evil")],
    "hard link": [entry("a", b"", type=tarfile.LNKTYPE, linkname="../../x")],
    "device": [entry("a", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
    "pipe": [entry("a", b"", type=tarfile.FIFOTYPE)],
    "backslash": [entry("..\\evil")],
    "drive": [entry("C:evil")],
    "control": [entry("a\nb")],
    "long": [entry("a" * 501)],
    "case": [entry("a/B.wav"), entry("A/b.wav")],
    "case of folders": [entry("a/b.wav"), entry("A/c.wav")],
    "accents": [entry("e\u0301.wav"), entry("\u00e9.wav")],
    "twice": [entry("a"), entry("a")],
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
    archive = make_tar(tmp_path / "a.tar.gz", entry("innocent"), *HOSTILE_TARS[kind])
    with pytest.raises(CorpusError, match="a.tar.gz") as caught:
        download.unpack(archive, tmp_path / "home/out", most_bytes=1_000_000, most_files=25)
    assert "\n" not in str(caught.value)
    assert left(tmp_path) == ["a.tar.gz"] and not list((tmp_path / "home").iterdir())


@pytest.mark.parametrize("entries", [
    [("../evil", b"x")], [("/tmp/umtlib-evil", b"x")], [zip_link()], [("a", b"x"), ("A", b"x")],
    [("zeros", bytes(2_000_000))], [("..\\evil", b"x")], [("../evil/", b"")],
])  # fmt: skip
def test_a_hostile_zip_is_refused(tmp_path, entries):
    archive = make_zip(tmp_path / "a.zip", ("innocent", b"x"), *entries)
    with pytest.raises(CorpusError):
        download.unpack(archive, tmp_path / "out", most_bytes=1_000_000)
    assert left(tmp_path) == ["a.zip"] and not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "html", "cut tar"])
def test_a_damaged_archive_is_refused(tmp_path, damage):
    path = make_tar(tmp_path / "a.tar.gz", entry("a", DATA))
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes({
        "cut": whole[:middle], "empty": b"", "html": b"<html>" * 100,
        "flipped": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        "cut tar": gzip.compress(gzip.decompress(whole)[:100_000]),
    }[damage])  # fmt: skip
    with pytest.raises(CorpusError, match="a.tar.gz"):
        download.unpack(path, tmp_path / "out")
    assert left(tmp_path) == ["a.tar.gz"] and not (tmp_path / "out").exists()


@pytest.mark.parametrize("end, words", [
    (b"\0" * 40_000_000, "long after"), (b"\0" * 1_000_000, None),
])  # fmt: skip
def test_what_follows_the_last_file(tmp_path, end, words):
    plain = gzip.decompress(make_tar(tmp_path / "x", entry("a")).read_bytes())
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(plain + end, 1))
    if words is None:
        assert left(download.unpack(tmp_path / "a.tar.gz", tmp_path / "out")) == ["a"]
        return
    with pytest.raises(CorpusError, match=words):
        download.unpack(tmp_path / "a.tar.gz", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_header_that_unfolds_to_a_bomb_is_not_read(tmp_path):
    name = b"\0" * 100_000_000  # a "long name", which tarfile would read into memory
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, len(name)
    with gzip.open(tmp_path / "a.tar.gz", "wb", compresslevel=1) as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT) + name)
    with pytest.raises(CorpusError, match="too long"):
        download.unpack(tmp_path / "a.tar.gz", tmp_path / "out")


def test_what_a_killed_run_has_left_is_replaced(tmp_path):
    (tmp_path / ".out.part").mkdir()
    (tmp_path / ".out.part/torn.wav").write_bytes(b"x")
    assert left(download.unpack(make_tar(tmp_path / "a", entry("b")), tmp_path / "out")) == ["b"]
    assert left(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_a_good_archive_is_unpacked(tmp_path, make):
    entries = [entry("./n/a.wav", DATA), entry("n/b/c.wav")]
    if make is make_zip:
        entries = [(info.name.removeprefix("./"), data) for info, data in entries]
    folder = download.unpack(make(tmp_path / "a", *entries), tmp_path / "new/out")
    assert (folder / "n/a.wav").read_bytes() == DATA and left(folder) == ["a.wav", "c.wav"]
    with pytest.raises(CorpusError, match="exists already"):
        download.unpack(tmp_path / "a", folder)


def published(url, data):
    return download.Published(url, f"md5:{hashlib.md5(data).hexdigest()}")


def test_a_data_set_is_obtained_in_its_layout(server, tmp_path, monkeypatch):
    folder = entry("nsynth-test", b"", type=tarfile.DIRTYPE)
    tar = make_tar(tmp_path / "x", folder, entry("nsynth-test/examples.json", b"{}")).read_bytes()
    csv = b"id,composer\n"
    monkeypatch.setattr(Handler, "files", {"n.tar.gz": tar, "m.csv": csv, "d.tar.gz": DATA})
    monkeypatch.setattr(download, "FILES", {
        "nsynth-test": published(f"{server}/drop/n.tar.gz", tar),
        "metadata": published(f"{server}/ok/m.csv", csv),
        "damaged": published(f"{server}/ok/d.tar.gz", DATA),
        "another": published(f"{server}/ok/d.tar.gz", tar),
    })  # fmt: skip
    root = download.obtain(["nsynth-test", "metadata"], tmp_path / "root")
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
    assert left(root) == ["examples.json", "m.csv"]


def test_the_published_files():
    assert {*nsynth.SPLITS, "musicnet", "musicnet-metadata"} == set(download.FILES)
    for url, checksum in download.FILES.values():
        assert url.split("/")[2] in ("storage.googleapis.com", "zenodo.org")
        assert url.startswith("https://") and re.fullmatch("md5:[0-9a-f]{32}", checksum)
