"""The gallery has 21 sounds that differ, at one level."""

from pathlib import Path

import numpy as np

from umtlib.notebook.gallery import gallery

ROOT = Path(__file__).parents[1]


def test_a_gallery_has_21_sounds_at_one_level():
    sounds = dict(gallery(ROOT / "data" / "mini", 0.5))
    assert len(sounds) == 21 and {"whistle", "opera", "drums", "speech", "bird"} < set(sounds)
    levels = [20 * np.log10(np.sqrt(np.mean(x**2))) for x in sounds.values()]
    assert all(x.shape == (8_000,) and x.dtype == np.float32 for x in sounds.values())
    # What is loud for a moment only is at the level then.
    assert min(levels) > -27 and max(levels) < -16
    likeness = np.corrcoef(np.stack([*sounds.values()])) - np.eye(21)
    assert np.abs(likeness).max() < 0.9  # the aria is sung over the orchestra
