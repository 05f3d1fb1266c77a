"""A numba cache for each worker of the tests: two that fill one at a time can damage it."""

import os
from pathlib import Path

if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ["NUMBA_CACHE_DIR"] = str(Path(__file__).parent / ".numba" / worker)
