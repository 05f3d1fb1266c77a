"""``umt import-official``."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from umtlib.cli.printing import say


def import_official(
    folder: Annotated[Path, Argument(metavar="DIR", help="Has args.pth, lastmodel_0.pth...")],
    out: Annotated[Path, Option(help="Folder of the model; must not exist yet.")],
    domain: Annotated[
        list[str], Option(help="Names of the decoders, in order. Default: from args.pth.")
    ] = [],
    weights: Annotated[str, Option(help="last or best.")] = "last",
) -> None:
    """Import the weights that the authors released, or that their code has trained."""
    from umtlib import checkpoint
    from umtlib.checkpoint.official import load_official

    model = load_official(folder, domain or None, weights)
    checkpoint.save(model, out)
    say(f"{out}: {', '.join(model.domains)}; translate with it by --model {out}")
