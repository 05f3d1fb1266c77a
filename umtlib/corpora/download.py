"""Fetching and unpacking the public data sets: verified, resumed, and never outside a folder.

A file appears in the cache under its name only when it is whole and its checksum is right. What a
broken connection leaves is kept apart as ``NAME.part``, from which the next attempt goes on.
"""

import os
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pooch
import requests

from umtlib.corpora import Progress
from umtlib.errors import CorpusError

_NSYNTH = "https://storage.googleapis.com/download.magenta.tensorflow.org/datasets/nsynth/nsynth-"
_MUSICNET = "https://zenodo.org/records/5120004/files/musicnet"

# Address and checksum: the MD5 that both servers state, Zenodo on the record's page and Google's
# storage as the ETag. Looked up, not computed from a download.
FILES = {
    "nsynth-train": (f"{_NSYNTH}train.jsonwav.tar.gz", "md5:fde6665a93865503ba598b9fac388660"),
    "nsynth-valid": (f"{_NSYNTH}valid.jsonwav.tar.gz", "md5:87e94a00a19b6dbc99cf6d4c0c0cae87"),
    "nsynth-test": (f"{_NSYNTH}test.jsonwav.tar.gz", "md5:5e6f8719bf7e16ad0a00d518b78af77d"),
    "musicnet": (f"{_MUSICNET}.tar.gz", "md5:844764911fa0d5b97c97da944a057590"),
    "musicnet-metadata": (f"{_MUSICNET}_metadata.csv", "md5:1caef62cee9c875235e62aac368b49d8"),
}
RETRIES = 4
TIMEOUT = (20, 60)  # seconds to connect, and between two pieces


def obtain(names: Iterable[str], root: str | os.PathLike, progress: Progress | None = None) -> None:
    """Download and unpack some of `FILES`, in the layout that `nsynth` and `musicnet` read.

    What is in ``root`` is kept, and not asked for again; the archives, in its ``.downloads``, may
    be removed. ``progress`` is called with a file's name, the bytes so far, and those in all: 0, if
    the server does not say. What cannot be fetched or unpacked, or is another file after five
    attempts, raises CorpusError.
    """
    root = Path(root)
    for name in names:
        url, checksum = FILES[name]
        file = url.rpartition("/")[2]
        if (root / name).exists() or (root / file).exists():
            continue
        archived = file.endswith(".tar.gz")
        whole = _fetch(url, root / ".downloads" if archived else root, checksum, progress)
        if archived:
            _unpack(whole, root / name)


def _fetch(url: str, folder: Path, checksum: str, progress: Progress | None) -> Path:
    """Download a file into a folder, unless it is there, under the last part of its address."""
    name = url.rpartition("/")[2]
    part = folder / f"{name}.part"

    def download(url: str, target: str, _pooch: pooch.Pooch) -> None:
        _resume(url, part, progress)
        part.replace(target)  # which pooch verifies, and moves or removes

    store = pooch.create(
        folder, base_url="", registry={name: checksum}, urls={name: url}, retry_if_failed=RETRIES
    )
    pooch.get_logger().setLevel("WARNING")  # it prints what `progress` says better
    try:
        return Path(store.fetch(name, downloader=download))
    except (requests.RequestException, ValueError, OSError) as error:
        text = f"{url} cannot be downloaded: {error}; call it again, it goes on from there"
        raise CorpusError(text) from error


def _resume(url: str, part: Path, progress: Progress | None) -> None:
    """Append what is missing of a file: what pooch cannot do, and 22 GB need."""
    have = part.stat().st_size if part.is_file() else 0
    # Compressed on the way, lengths and ranges would be of something else than the file.
    headers = {"Accept-Encoding": "identity", "Range": f"bytes={have}-"}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as reply:
        if reply.status_code == 416:  # all is there; if not the file, pooch removes it
            return
        reply.raise_for_status()
        if "text/html" in reply.headers.get("Content-Type", ""):  # of a network that wants a login
            raise ValueError("the server sends a web page in place of the file")
        have = have if reply.status_code == 206 else 0
        total = have + int(reply.headers.get("Content-Length", 0))
        with part.open("ab" if have else "wb") as file:
            for piece in reply.iter_content(1 << 16):
                have += file.write(piece)
                if progress:
                    progress(part.stem, have, total)
    if have < total:
        raise ValueError(f"the connection broke after {have} of {total} bytes")


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack the folder of a verified archive that has the name of `folder`: all, or nothing."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a run that was killed
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                tar.extract(member, part, filter="data")
                tar.members = []  # tarfile remembers every header; nothing here asks twice
        (part / folder.name).rename(folder)
    except (OSError, EOFError, tarfile.TarError) as error:
        text = f"{archive} cannot be unpacked: {error}; remove it and download it again"
        raise CorpusError(text) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
