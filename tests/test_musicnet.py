"""MusicNet's layout to a corpus, from lines of its real metadata."""

from pathlib import Path

import pytest
import soundfile

from conftest import assert_refused, skipped, tone
from umtlib.corpora import musicnet
from umtlib.corpora.corpus import Corpus
from umtlib.errors import CorpusError, UmtError

# Lines of the real musicnet_metadata.csv (Thickstun et al., CC BY 4.0), with its quoted commas.
CSV = (Path(__file__).parent / "golden/musicnet_metadata.csv").read_text(encoding="utf-8")
TEST = {2298, 2303, 2382, 2556, 2628}  # of these, the ones that are in the real test_data


@pytest.fixture
def folder(tmp_path):
    """The layout, with a tone in place of each recording."""
    root = tmp_path / "in"
    root.mkdir()
    (root / "musicnet_metadata.csv").write_text(CSV, encoding="utf-8")
    for row in musicnet.read_metadata(root / "musicnet_metadata.csv"):
        path = root / ("test_data" if row["id"] in TEST else "train_data") / f"{row['id']}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, tone(0.6, 44_100, row["id"] / 4), 44_100)
    return root


def build(folder, **settings):
    out = folder.parent / "out"
    musicnet.build(folder, out, workers=0, **settings)
    return Corpus(out)


def test_the_authors_domains(folder):
    corpus = build(folder)
    assert {*corpus.domains} == {*musicnet.AUTHORS} and len(corpus.tracks) == 20  # all but Schubert
    found = {track.source["id"]: track for track in corpus.tracks}
    assert {number for number, t in found.items() if t.split == "test"} >= TEST
    for number in TEST:
        assert found[number].source["source"] == f"test_data/{number}.wav"
    for domain in corpus.domains:
        assert corpus.select(domain, "train") and corpus.select(domain, "val"), domain
    # of the domains with recordings in test_data, nothing else is in test
    assert all(t.domain == "cambini_wind_quintet" for n, t in found.items()
               if t.split == "test" and n not in TEST)  # fmt: skip
    for one, other in ((2335, 2341), (2343, 2346)):  # one movement, two performances
        assert found[one].split == found[other].split
    assert found[2341].source["performer"] == "European Archive"
    assert found[2341].source["movement"].startswith("2. Tempo di minuetto, ma molto")


def test_as_a_command_with_other_domains_and_the_archives_own_folder(umt, folder):
    (folder / "musicnet").mkdir()
    for part in ("train_data", "test_data"):
        (folder / part).rename(folder / "musicnet" / part)
    fugues = "fugues=composer == 'Bach' and ('Fugue' in movement or 'Prelude' in movement)"
    long = "long=seconds >= 400 and not composer in ('Bach', 'Schubert')"
    command = ["corpus", "musicnet", folder, "--workers", 1, "--out", folder.parent / "out"]
    status, printed, complaint = umt(*command, "--domain", fugues, "--domain", long)
    assert status == 0 and "10 tracks" in printed, complaint
    ids = {track.source["id"]: track.domain for track in Corpus(folder.parent / "out").tracks}
    assert ids == dict.fromkeys((2195, 2196, 2303, 2217), "fugues") | dict.fromkeys(
        (2335, 2341, 2397, 2532, 2313, 2365), "long"
    )
    wrong = umt("corpus", "musicnet", folder, "--domain", "a=exit()", "--out", folder / "three")
    assert_refused(wrong, "'exit()'", "composer == 'Bach'", out=folder / "three")


def test_a_missing_recording_is_listed(folder):
    (folder / "train_data/2075.wav").unlink()
    (folder / "train_data/2341.wav").write_bytes(b"<html>")
    assert len(build(folder).tracks) == 18
    lines = {line["file"]: line["reason"] for line in skipped(folder.parent / "out")}
    assert "No such file" in lines["train_data/2075.wav"]
    assert "cannot be decoded" in lines["train_data/2341.wav"]


@pytest.mark.parametrize("expression", [
    "", "composer = 'Bach'", "__import__('os').system('true')", "composer.x == 1",
    "[x for x in ()]", "name == 'Bach'", "1 < id < 3", "(" * 500, "composer[0] == 'B'",
    "'Bach' == composer or __builtins__", "id == 9 ** 9 ** 9", "\0", "composer < 3",
])  # fmt: skip
def test_an_expression_is_never_run(expression):
    with pytest.raises(CorpusError, match="expression"):
        musicnet.selector(expression)


@pytest.mark.parametrize("csv", [
    "id,composer\n1,Bach\n", CSV.replace("1729", "x"), CSV.replace("OP114,444", "OP114"),
])  # fmt: skip
def test_damaged_metadata(folder, csv):
    (folder / "musicnet_metadata.csv").write_text(csv)
    with pytest.raises(CorpusError, match=r"metadata.csv.*download it again"):
        build(folder)


@pytest.mark.parametrize("domains, words", [
    ({"a b": "id > 0"}, "letters"), ({"a": "id < 0"}, "no recording"),
    ({"a": "id > 0", "b": "id == 2217"}, "of two domains"),
])  # fmt: skip
def test_domains_that_make_no_sense(folder, domains, words):
    with pytest.raises(UmtError, match=words):
        build(folder, domains=domains)
