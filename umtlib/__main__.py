"""``python -m umtlib`` is ``umt``."""

from umtlib.cli import main

main()
