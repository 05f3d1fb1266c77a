"""Names of files, shown: a file system may hold any."""

import os
import unicodedata


def readable(name: str | os.PathLike) -> str:
    r"""Return a name, or a text with names in it, as one line that is valid Unicode.

    Control characters, line ends, marks that reverse the order of writing, and bytes that are no
    text are escaped as Python does; all else stays.

    >>> print(readable("two\nlines"), readable("as they are"))
    two\nlines as they are
    """
    return "".join(
        one
        if one.isprintable() or unicodedata.category(one) == "Zs"
        else one.encode("unicode_escape").decode("ascii")
        for one in os.fspath(name)
    )
