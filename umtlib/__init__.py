"""umtlib: one encoder, many decoders, any music in, six domains out.

A reproduction of Mor, Wolf, Polyak and Taigman, "A Universal Music Translation Network" (2018).
The names below are the public ones; each is imported when it is first used, so that
``import umtlib`` costs nothing.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "MusicTranslator": "umtlib.translator",
    "UmtError": "umtlib.errors",
    "generate": "umtlib.generation",
    "load": "umtlib.checkpoint",
    "load_official": "umtlib.checkpoint.official",
    "preset": "umtlib.runs",
    "pretrained": "umtlib.checkpoint",
    "read": "umtlib.audio",
    "save": "umtlib.checkpoint",
    "stream": "umtlib.generation.stream",
    "translate": "umtlib.generation.translation",
    "write": "umtlib.audio",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'umtlib' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
