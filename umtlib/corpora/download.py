"""Fetching and unpacking the public data sets: verified, resumed, and never outside a folder.

A file appears in the cache under its name only when it is whole and its checksum is right. What a
broken connection leaves is kept apart as ``NAME.part``, from which the next attempt goes on.
"""

import gzip
import os
import shutil
import stat
import tarfile
import threading
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

import pooch
import requests

from umtlib.errors import CorpusError


class Published(NamedTuple):
    """A file as its publisher offers it: the address, and a checksum as pooch writes it."""

    url: str
    checksum: str


_NSYNTH = "https://storage.googleapis.com/download.magenta.tensorflow.org/datasets/nsynth/nsynth-"
_MUSICNET = "https://zenodo.org/records/5120004/files/musicnet"

# MD5 is what both servers state: Zenodo on the record's page, Google's storage as the ETag. Looked
# up, not computed from a download.
FILES = {
    "nsynth-train": Published(
        f"{_NSYNTH}train.jsonwav.tar.gz", "md5:fde6665a93865503ba598b9fac388660"
    ),
    "nsynth-valid": Published(
        f"{_NSYNTH}valid.jsonwav.tar.gz", "md5:87e94a00a19b6dbc99cf6d4c0c0cae87"
    ),
    "nsynth-test": Published(
        f"{_NSYNTH}test.jsonwav.tar.gz", "md5:5e6f8719bf7e16ad0a00d518b78af77d"
    ),
    "musicnet": Published(f"{_MUSICNET}.tar.gz", "md5:844764911fa0d5b97c97da944a057590"),
    "musicnet-metadata": Published(
        f"{_MUSICNET}_metadata.csv", "md5:1caef62cee9c875235e62aac368b49d8"
    ),
}
RETRIES = 4
TIMEOUT = (20, 60)  # seconds to connect, and between two pieces
LIMIT = 24 * 3600  # seconds for a file, all attempts together: 22 GB at 260 kB/s
MOST_BYTES = 64 << 30  # of an unpacked archive; the largest real one, nsynth-train, has 37 GB
MOST_FILES = 1_000_000
_CHUNK = 1 << 16  # bytes; of a broken connection up to so much is lost
_MOST_HEADER = 16 << 20  # bytes
_MOST_PADDING = 16 << 20  # bytes; tar pads to 10 KB, or to what it is told

Progress = Callable[[str, int, int], None]


def fetch(
    url: str,
    folder: str | os.PathLike,
    checksum: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Download a file into a cache, unless it is there.

    Parameters
    ----------
    url : str
        The file; its last part becomes the name in the cache.
    folder : path
        The cache.
    checksum : str, optional
        Such as ``"sha256:..."`` or ``"md5:..."``. Without one only the length is checked.
    progress : callable, optional
        Called with the name, bytes so far, and bytes in all (0 where the server does not say).

    Returns
    -------
    Path

    Raises
    ------
    CorpusError
        If after five attempts, or 24 hours, the file is not there, or is another one.
    """
    name = url.split("?")[0].rstrip("/").rsplit("/", 1)[-1]
    if name in ("", ".", ".."):
        raise CorpusError(f"{url} names no file")
    store = pooch.create(
        folder, base_url="", registry={name: checksum}, urls={name: url},
        retry_if_failed=RETRIES,
    )  # fmt: skip
    part = Path(folder, f"{name}.part")
    pooch.get_logger().setLevel("WARNING")  # it prints what `progress` says better

    late = threading.Event()

    def download(url: str, target: str, _pooch: pooch.Pooch) -> None:
        _resume(url, part, progress, late)
        os.replace(part, target)  # which pooch verifies, and moves or removes

    try:
        return Path(_within(LIMIT, late, lambda: store.fetch(name, downloader=download)))
    except TimeoutError as error:
        raise CorpusError(
            f"{url} was not here after {LIMIT:,} s; call it again, it goes on from there"
        ) from error
    except (requests.RequestException, ValueError, OSError) as error:
        raise CorpusError(f"{url} cannot be downloaded: {error}; try again later") from error


def _within(seconds: float, late: threading.Event, work: Callable[[], Any]) -> Any:
    """Return what `work` returns; when it is late, tell it so and do not wait for it.

    A server that sends a byte a minute keeps every time-out of a connection, and a thread waiting.
    """
    done: Future[Any] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return done.result(seconds)
    finally:
        late.set()


def _resume(url: str, part: Path, progress: Progress | None, late: threading.Event) -> None:
    """Append what is missing of a file; on return it has the length that the server announced."""
    have = part.stat().st_size if part.is_file() else 0
    # Compressed on the way, lengths and ranges would be of something else than the file.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as reply:
        if have and not _goes_on(reply, have):
            part.unlink()
            if not reply.ok:  # such as 416: what is there is longer than the file
                raise ValueError(f"the server cannot go on after {have} bytes")
            have = 0
        reply.raise_for_status()
        total = have + int(reply.headers.get("Content-Length", 0))
        pieces = reply.iter_content(_CHUNK)
        first = next(pieces, b"")
        if _is_page(reply, first):
            raise ValueError("the server sends a web page in place of the file")
        with part.open("ab") as file:
            for piece in chain([first], pieces):
                if late.is_set():
                    raise CorpusError("nobody waits for it any more")
                file.write(piece)
                have += len(piece)
                if progress:
                    progress(part.stem, have, total)
    if have < total:
        raise ValueError(f"the connection broke after {have} of {total} bytes")


def _goes_on(reply: requests.Response, have: int) -> bool:
    starts_there = reply.headers.get("Content-Range", "").startswith(f"bytes {have}-")
    return reply.status_code == 206 and starts_there


def _is_page(reply: requests.Response, start: bytes) -> bool:
    """Say whether a reply is HTML, by what the server calls it or by how it starts."""
    called = "text/html" in reply.headers.get("Content-Type", "")
    return called or start.lstrip().lower().startswith((b"<!doctype html", b"<html"))


def obtain(names: Iterable[str], root: str | os.PathLike, progress: Progress | None = None) -> Path:
    """Download and unpack public data sets, in the layout that `nsynth` and `musicnet` read.

    Parameters
    ----------
    names : iterable of str
        Of `FILES`. What is in ``root`` already is kept, and nothing is asked of the network for it.
    root : path
        The folder to put them in. The archives stay in its ``.downloads``; they may be removed.
    progress : callable, optional
        As in `fetch`.

    Returns
    -------
    Path
        `root`.

    Raises
    ------
    CorpusError
        As `fetch` and `unpack`. A damaged archive is removed, so that the next call loads it again.
    """
    root = Path(root)
    for name in names:
        url, checksum = FILES[name]
        file = url.rsplit("/", 1)[-1]
        if (root / name).exists() or (root / file).exists():
            continue
        if file.endswith(".tar.gz"):
            _unpack_named(fetch(url, root / ".downloads", checksum, progress), root, name)
        else:
            fetch(url, root, checksum, progress)
    return root


def _unpack_named(archive: Path, root: Path, name: str) -> None:
    """Unpack the one folder that an archive holds."""
    fresh = root / f".{name}.unpacked"
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        unpack(archive, fresh)
        (fresh / name).rename(root / name)
    except CorpusError as error:
        cause = error.__cause__
        if not isinstance(cause, OSError) or isinstance(cause, gzip.BadGzipFile):
            archive.unlink(missing_ok=True)  # it is damaged; a full disk would be another matter
        raise
    except OSError as error:
        raise CorpusError(f"{archive} holds no folder {name!r}: {error.strerror}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


class Member(NamedTuple):
    """A file of an archive and a function that opens it, or a folder without one."""

    name: str
    size: int
    open: Callable[[], IO[bytes]] | None


def unpack(
    archive: str | os.PathLike,
    folder: str | os.PathLike,
    *,
    most_bytes: int = MOST_BYTES,
    most_files: int = MOST_FILES,
) -> Path:
    """Unpack a ``.tar.gz``, ``.tar`` or ``.zip`` into a new folder: all of it, or nothing.

    Only plain files and folders with relative names are taken; owners and permissions are not.

    Parameters
    ----------
    archive : path
        The archive.
    folder : path
        Must not exist yet.
    most_bytes, most_files : int
        What the archive may unfold to.

    Returns
    -------
    Path
        `folder`.

    Raises
    ------
    CorpusError
        If the archive is damaged; holds links, devices, an absolute name, one with ``..``, or two
        that differ only in case; or unfolds to too much. Nothing is left then.
    """
    folder = Path(folder)
    if folder.exists():
        raise CorpusError(f"{folder} exists already; choose another folder")
    part = folder.with_name(f".{folder.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)  # of a run that was killed
        part.mkdir(parents=True)
        _unpack_into(part, _members(Path(archive)), most_bytes, most_files)
        part.rename(folder)
    except CorpusError as error:
        raise CorpusError(f"{archive}: {error}; nothing was unpacked") from error
    except (OSError, EOFError, ValueError, tarfile.TarError, zipfile.BadZipFile, RuntimeError,
            NotImplementedError, zlib.error) as error:  # fmt: skip
        raise CorpusError(f"{archive} cannot be unpacked: {error}; download it again") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _unpack_into(part: Path, members: Iterator[Member], most_bytes: int, most_files: int) -> None:
    total, seen = 0, {}
    for count, member in enumerate(members, start=1):
        total += member.size
        if total > most_bytes or count > most_files:
            raise CorpusError(f"unfolds to more than {most_bytes} bytes or {most_files} files")
        target = part / _safe(member.name)
        if member.open is None:
            continue  # made with the first file in it
        _check_new(member.name, seen)
        target.parent.mkdir(parents=True, exist_ok=True)
        with member.open() as source, target.open("xb") as file:
            shutil.copyfileobj(source, file, _CHUNK)
        if target.stat().st_size != member.size:
            raise CorpusError(f"{member.name[:200]!r} is truncated")


def _safe(name: str) -> str:
    """Return a member's name, if on every system it is a file inside the folder."""
    parts = name.split("/")
    odd = any(ord(letter) < 32 or letter in '\\:*?"<>|' for letter in name)
    if odd or len(name) > 500 or any(p in ("", "..") or p.endswith(" ") for p in parts):
        raise CorpusError(f"the name {name[:200]!r} could lead out of the folder")
    return name


def _check_new(name: str, seen: dict[str, str]) -> None:
    """Refuse names, of files or of folders, that differ but are one on some file systems."""
    path = PurePosixPath(name)
    for place in map(str, (path, *path.parents)):
        folded = unicodedata.normalize("NFC", place).casefold()
        if seen.setdefault(folded, place) != place:
            raise CorpusError(f"the names {place[:200]!r} and {seen[folded][:200]!r} collide")


def _members(archive: Path) -> Iterator[Member]:
    if zipfile.is_zipfile(archive):
        yield from _zip_members(archive)
        return
    with archive.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        with _Careful(file) if packed else file as plain:
            with tarfile.open(fileobj=plain, mode="r:") as tar:
                for info in tar:
                    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
                        raise CorpusError(f"{info.name[:200]!r} is a link or a device")
                    opened = None if info.isdir() else lambda info=info: tar.extractfile(info)
                    yield Member(info.name, info.size, opened)
                    tar.members = []  # tarfile remembers every header; nothing here asks twice
            _read_to_end(plain)


def _read_to_end(file: IO[bytes]) -> None:
    """Skip a tar archive's padding: gzip's checksum comes after it, at the very end."""
    for _ in range(_MOST_PADDING // _CHUNK):
        if not file.read(_CHUNK):
            return
    raise CorpusError("goes on long after its last file")


class _Careful(gzip.GzipFile):
    """tarfile reads an extended header at once, however long it says it is."""

    def __init__(self, file: IO[bytes]):
        super().__init__(fileobj=file, mode="rb")

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _MOST_HEADER:
            raise CorpusError("a header is too long")
        return super().read(size)


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise CorpusError(f"{info.filename[:200]!r} is a link or a device")
            opened = None if info.is_dir() else lambda info=info: packed.open(info)
            yield Member(info.filename.removesuffix("/"), info.file_size, opened)
