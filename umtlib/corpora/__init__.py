"""Where audio comes from: scores, folders and public data sets, all brought to one format."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # called with a stage, steps done and steps in all
