"""Plant faults in the library and show that the notebooks notice: a checked cell goes red.

::

    python scripts/plant_faults.py                    # two faults a notebook
    python scripts/plant_faults.py --all 06_generation

A fault is a few lines of Python that run after the notebook's imports. The notebook is run until
the output of a checked cell is another than the committed one, or such a cell raises. A notebook
that reaches its end, or stops in a cell that checks nothing, has not noticed.
"""

import argparse
import inspect
import sys
from pathlib import Path

import nbformat
from nbclient.exceptions import CellExecutionError

from notebooks import FOLDER, MARK, client, text

# What a slip in a fault raises, and no check.
ACCIDENTS = ("AttributeError", "ImportError", "NameError", "RecursionError", "TypeError")
IN_CI = 2  # faults a notebook without --all: the first ones of each


def plant(place: str, wrap) -> None:
    """Put ``wrap(real)`` in the place of ``module:function`` or ``module:Class.method``.

    A function is replaced under whatever name library or cells have it.
    """
    import pkgutil
    import sys

    real = pkgutil.resolve_name(place)
    fault, (owner, _, method) = wrap(real), place.rpartition(".")
    if ":" in owner:
        return setattr(pkgutil.resolve_name(owner), method, fault)
    for module in [*sys.modules.values()]:
        if getattr(module, "__name__", "").split(".")[0] in ("umtlib", "__main__"):
            for name, value in [*vars(module).items()]:
                if value is real:
                    setattr(module, name, fault)


def translate_badly(make) -> None:
    """Let `umtlib.translate` return ``make(model, domain, waveform, translate)`` instead."""
    from umtlib import audio
    from umtlib.generation import translation

    def wrap(real):
        def fault(model, sound, sample_rate, *, to="all", **options):
            names, waveform = translation.domains(model, to), audio.to_mono_16k(sound, sample_rate)

            def one(name):
                return real(model, sound, sample_rate, to=name, **options)

            made = {name: make(model, name, waveform, one) for name in names}
            return made[to] if isinstance(to, str) and to != "all" else made

        return fault

    plant("umtlib.generation.translation:translate", wrap)


def instead(place: str, fault: str, imports: str = "") -> str:
    """Return code that plants a function of the same arguments, which may ask the `real` one."""
    return f"{imports}\n\nplant({place!r}, lambda real: {fault})"


def constant(place: str, value: str) -> str:
    """Return code after which a function always returns one value."""
    return instead(place, f"lambda *_, **__: {value}")


ZEROS = "translate_badly(lambda model, name, waveform, translate: 0 * waveform)"
INPUT = "translate_badly(lambda model, name, waveform, translate: waveform)"
WRONG_DOMAIN = """translate_badly(lambda model, name, waveform, translate: translate(
    model.domains[model.domains.index(name) - 1]
))"""
TRANSLATIONS = {
    "translate returns zeros": ZEROS,
    "translate returns the wrong domain": WRONG_DOMAIN,
    "translate returns the input": INPUT,
}
NO_LEARNING = constant("torch.optim:Adam.step", "None")
EMPTY_CORPUS = constant("umtlib.corpora.corpus:read_manifest", "[]")
LEAK = instead(
    "umtlib.corpora.corpus:read_manifest",
    'lambda path: [replace(track, split="train") for track in real(path)]',
    "from dataclasses import replace",
)

FAULTS = {
    "01_quickstart": {
        **TRANSLATIONS,
        "the measure is constant": constant("umtlib.evaluation.pitch:chroma_correlation", "0.9"),
        "the splits leak": LEAK,
        "the corpus is empty": EMPTY_CORPUS,
    },
    "02_data_preparation": {
        "the corpus is empty": EMPTY_CORPUS,
        "the splits of the shipped corpus leak": LEAK,
        "the splits of what is prepared leak": instead(
            "umtlib.corpora.prepare:assign_splits",
            'lambda items: [s for s, _ in zip(cycle(("train", "val", "test")), items)]',
            "from itertools import cycle",
        ),
    },
    "03_the_network": {
        "mu-law is the pair that is no inverse": instead(
            "umtlib.mulaw:encode", 'lambda waveform, *_, **__: real(waveform, "official")'
        ),
        "the decoder hears what it has to predict": instead(
            "umtlib.layers:delay",
            "lambda x, steps, *more: x if steps == 1 else real(x, steps, *more)",
        ),
        "the receptive field is constant": constant("umtlib.layers:receptive_field", "4096"),
        "the classifier returns a constant": instead(
            "umtlib.classifier:Classifier.forward", "lambda self, latent: 0 * real(self, latent)"
        ),
        "the decoders do not hear the latent": instead(
            "umtlib.decoder:Decoder.forward",
            "lambda self, codes, latent: real(self, codes, 0 * latent)",
        ),
    },
    "04_training_nsynth": {
        "the corpus is empty": EMPTY_CORPUS,
        "training does not learn": NO_LEARNING,
        "translate returns zeros": ZEROS,
        "the encoder tells nothing": instead(
            "umtlib.encoder:Encoder.forward", "lambda self, codes: 0 * real(self, codes)"
        ),
    },
    "05_training_six_domains": {
        "the corpus is empty": EMPTY_CORPUS,
        "the splits leak": LEAK,
        "training does not learn": NO_LEARNING,
        "the loss is constant": instead(
            "umtlib.losses:reconstruction", "lambda logits, target: 5.5 + 0 * logits.sum()"
        ),
    },
    "06_generation": {
        **TRANSLATIONS,
        "every choice is the likeliest": instead(
            "umtlib.generation:choose", "lambda logits, *_, **__: logits.argmax(dim=-1)"
        ),
        "the temperature is ignored": instead(
            "umtlib.generation:choose",
            "lambda logits, uniforms, *_, **__: real(logits, uniforms, 1.0)",
        ),
        "a generator draws numbers of its own": instead(
            "umtlib.generation:generate",
            "lambda *given, uniforms=None, **options: real(*given, **options)",
        ),
    },
    "07_translation": {
        **TRANSLATIONS,
        "a measure is constant": constant("umtlib.evaluation.pitch:evaluate", "{'chroma': 0.8}"),
        "the seed is ignored": instead(
            "umtlib.generation.translation:seeded", "lambda seed, *more: real(0, *more)"
        ),
        "the panel plays its input from the end": """from umtlib.notebook import translating

_input = translating.Translator._input
translating.Translator._input = lambda self, which: _input(self, which)[::-1].copy()""",
    },
    "08_evaluation": {
        "a measure is constant": constant("umtlib.evaluation.pitch:best_shift_correlation", "0.85"),
        "the splits leak": LEAK,
        "no note is ever heard": constant("umtlib.evaluation.notes:transcribe", "[]"),
        "the flutter is constant": constant("umtlib.evaluation.dynamics:flutter", "1.0"),
        "the distance is constant": constant("umtlib.evaluation.truth:spectral_distance", "5.0"),
        "the corpus is empty": EMPTY_CORPUS,
        **TRANSLATIONS,
    },
    "09_listening_tests": {
        "translate returns zeros": ZEROS,
        "there are no excerpts": constant("umtlib.corpora.pairs:read_pairs", "[]"),
        "translate returns the input": INPUT,
        "translate returns the wrong domain": WRONG_DOMAIN,
        "the widget loses answers": constant(
            "umtlib.notebook.hearing:ListeningTest._write", "None"
        ),
        "nobody is left out": constant("umtlib.evaluation.listening:screen", "[]"),
        "the interval is constant": instead(
            "umtlib.evaluation.listening:opinion",
            'lambda rows: real(rows) | {"naive": 0.1, "interval": 0.3}',
        ),
        "the lineup is always significant": instead(
            "umtlib.evaluation.listening:lineup", 'lambda *given: real(*given) | {"p": 0.01}'
        ),
    },
    "10_beyond": {
        "the splits leak": LEAK,
        "the corpus is empty": EMPTY_CORPUS,
        "the decoders do not hear the latent": instead(
            "umtlib.generation.translation:decode",
            "lambda model, names, latent, *rest, **options: "
            "real(model, names, 0 * latent, *rest, **options)",
        ),
        "a measure is constant": constant(
            "umtlib.evaluation.blending:creativity", "{'kept': 0.8, 'agreed': 0.8}"
        ),
        **TRANSLATIONS,
        "the reader does not learn": instead(
            "sklearn.linear_model:Ridge.predict", "lambda self, inputs: 0 * real(self, inputs)"
        ),
    },
}


def noticed(notebook, folder: Path, fault: str) -> str | None:
    """Run a notebook with a fault; return what a checked cell says of it, or None."""
    planted, given = nbformat.from_dict(notebook), map(inspect.getsource, (plant, translate_badly))
    imports = [index for index, cell in enumerate(planted.cells) if cell.cell_type == "code"][1]
    source = "\n\n".join([*given, fault])
    planted.cells.insert(imports + 1, nbformat.v4.new_code_cell(source))
    running = client(planted, folder)
    with running.setup_kernel():
        for index, cell in enumerate(planted.cells):
            before = _texts(cell)
            try:
                running.execute_cell(cell, index)
            except CellExecutionError as error:
                if not cell.source.startswith(MARK) or error.ename in ACCIDENTS:
                    print(f"  an accident, not a check: {error.ename}: {error.evalue}")
                    return None
                return f"{error.ename}: {error.evalue}"
            if cell.source.startswith(MARK) and _texts(cell) != before:
                return _first_difference(before, _texts(cell))
    return None


def _texts(cell) -> list[str]:
    """Return the lines that a cell printed or returned."""
    return "".join(text(output) for output in cell.get("outputs", [])).splitlines()


def _first_difference(before: list[str], after: list[str]) -> str:
    wanted, found = [*before, "nothing"], [*after, "nothing"]
    return next(f"{b!r} became {a!r}" for b, a in zip(wanted, found, strict=False) if a != b)


def main(arguments: list[str] | None = None) -> int:
    """Plant faults; return how many no notebook noticed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="*", help="of notebooks; by default all")
    parser.add_argument("--all", action="store_true", help=f"not only {IN_CI} a notebook")
    options = parser.parse_args(arguments)
    unnoticed = 0
    for name in options.names or [path.stem for path in sorted(FOLDER.glob("*.ipynb"))]:
        notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
        for fault in list(FAULTS[name])[: None if options.all else IN_CI]:
            says = noticed(notebook, FOLDER, FAULTS[name][fault])
            print(f"{name}: {fault}: {says or 'NOT NOTICED'}", flush=True)
            unnoticed += not says
    return unnoticed


if __name__ == "__main__":
    sys.exit(main())
