"""MusicNet (Thickstun et al. 2017), in the layout in which it is published.

::

    musicnet_metadata.csv   one line per recording: id, composer, composition, movement, ensemble...
    train_data/1727.wav     (or musicnet/train_data/1727.wav)
    test_data/1759.wav

``test_data`` becomes test. A part of ``train_data`` becomes val, and test too where a domain has
nothing in ``test_data``; the recordings of one movement stay together.
"""

import ast
import csv
import operator
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from umtlib.corpora.prepare import Item, Summary, prepare
from umtlib.errors import CorpusError

METADATA = "musicnet_metadata.csv"
COLUMNS = ("id", "composer", "composition", "movement", "ensemble", "source", "transcriber",
           "catalog_name", "seconds")  # fmt: skip

# The domains of the authors' released weights, in the order of the decoders.
AUTHORS = {
    "bach_solo_cello": "composer == 'Bach' and ensemble == 'Solo Cello'",
    "beethoven_solo_piano": "composer == 'Beethoven' and ensemble == 'Solo Piano'",
    "cambini_wind_quintet": "composer == 'Cambini' and ensemble == 'Wind Quintet'",
    "bach_solo_piano": "composer == 'Bach' and ensemble == 'Solo Piano'",
    "beethoven_accompanied_violin": "composer == 'Beethoven' and ensemble == 'Accompanied Violin'",
    "beethoven_string_quartet": "composer == 'Beethoven' and ensemble == 'String Quartet'",
}


def build(
    folder: str | os.PathLike,
    out: str | os.PathLike,
    *,
    domains: Mapping[str, str] = AUTHORS,
    **settings,
) -> Summary | None:
    """Make a corpus of MusicNet; each domain has an expression, see `selector`.

    Settings are those of `prepare`. A wrong layout or expression, a recording of two domains, or a
    domain with too few raises a CorpusError.
    """
    folder = Path(folder)
    rows = read_metadata(folder / METADATA)
    items: list[Item] = []
    for name, expression in domains.items():
        chosen = list(filter(selector(expression), rows))
        if not chosen:
            raise CorpusError(f"no recording of {folder} is of domain {name!r}: {expression}")
        items += [_item(folder, name, row) for row in chosen]
    if len({item.name for item in items}) != len(items):
        raise CorpusError("a recording is of two domains; make the expressions exclude each other")
    return prepare(items, out, **settings)


def read_metadata(path: Path) -> list[dict]:
    """Return the recordings, ``id`` and ``seconds`` as numbers; another file: a CorpusError."""
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            rows = [{name: row[name] for name in COLUMNS} for row in csv.DictReader(lines)]
        return [r | {"id": int(r["id"]), "seconds": float(r["seconds"])} for r in rows]
    except (OSError, LookupError, ValueError, TypeError, csv.Error) as error:
        raise CorpusError(f"{path} is no table of MusicNet ({error}); download it again") from error


def selector(expression: str) -> Callable[[Mapping], bool]:
    """Return a function that says whether a recording is chosen; nothing in the text is ever run.

    An expression has comparisons (``==``, ``!=``, ``<``, ``<=``, ``>``, ``>=``, ``in``, ``not in``)
    of the columns of the metadata with texts and numbers, joined by ``and``, ``or`` and ``not``.
    Anything else raises a CorpusError.

    >>> chosen = selector("composer in ('Bach', 'Haydn') and 'Fugue' in movement")
    >>> chosen({"composer": "Bach", "movement": "2. Fugue"})
    True
    """
    try:
        tree = ast.parse(expression, mode="eval").body
        _value(tree, dict.fromkeys(COLUMNS, "") | {"id": 0, "seconds": 0.0})
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        text = f"expression {expression[:200]!r}: {error}; write such as composer == 'Bach'"
        raise CorpusError(text) from error
    return lambda row: bool(_value(tree, row))


_COMPARE = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip


def _value(node: ast.AST, row: Mapping):
    """Compute the few kinds of nodes that an expression may have, each part of them."""
    match node:
        case ast.BoolOp(op, values):
            results = [_value(value, row) for value in values]
            return all(results) if isinstance(op, ast.And) else any(results)
        case ast.UnaryOp(ast.Not(), operand):
            return not _value(operand, row)
        case ast.Compare(left, [op], [right]) if type(op) in _COMPARE:
            return _COMPARE[type(op)](_value(left, row), _value(right, row))
        case ast.Name(name) if name in COLUMNS:
            return row[name]
        case ast.Constant(str() | int() | float() as value):
            return value
        case ast.Tuple(elements):
            return [_value(element, row) for element in elements]
    raise ValueError(f"{ast.unparse(node)!r} is not allowed; the columns are {', '.join(COLUMNS)}")


def _item(folder: Path, domain: str, row: Mapping) -> Item:
    names = [f"{part}/{row['id']}.wav" for part in ("test_data", "train_data")]
    places = [(base / name, name) for name in names for base in (folder, folder / "musicnet")]
    path, name = next((place for place in places if place[0].is_file()), places[2])
    group = " / ".join(row[key] for key in ("composer", "composition", "movement"))
    source = {key: row[key] for key in COLUMNS if key not in ("source", "seconds")}
    source["performer"] = row["source"]
    return Item(str(path), name, domain, group, "test" if name == names[0] else None, source)
