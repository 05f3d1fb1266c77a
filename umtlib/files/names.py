"""Names of files: any that the file system holds, shown and made."""

import hashlib
import os
import unicodedata

LONGEST = 255  # bytes of a name, in nearly all file systems


def readable(name: str | os.PathLike) -> str:
    r"""Return a name, or a text with names in it, as one line that is valid Unicode.

    Bytes that are no text, control characters, line ends and marks that reverse the order of
    writing are escaped as Python does; all else stays.

    Examples
    --------
    >>> print(readable("two\nlines"), readable(os.fsdecode(b"\xff.wav")))
    two\nlines \xff.wav
    """
    return "".join(map(_readable, os.fspath(name)))


def _readable(character: str) -> str:
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    if "\udc80" <= character <= "\udcff":  # a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def fitting(stem: str, suffix: str) -> str:
    """Return ``stem + suffix``; if that has more than 255 bytes, of the stem the beginning.

    What is cut off is replaced by eight digits that follow from the whole stem, so that different
    names stay different.
    """
    if _bytes(stem + suffix) <= LONGEST:
        return stem + suffix
    digest = hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]
    room = LONGEST - _bytes(f"~{digest}{suffix}")
    while stem and _bytes(stem) > room:
        stem = stem[:-1]
    return f"{stem}~{digest}{suffix}"


def _bytes(name: str) -> int:
    return len(os.fsencode(name))
