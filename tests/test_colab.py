"""Colab simulated, the address in one place, and what a wheel holds."""

import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import outside
import pytest
import repository
from IPython.core.interactiveshell import InteractiveShell

from umtlib import errors, notebook
from umtlib.notebook import colab

REPOSITORY = Path(__file__).parents[1]
QUICKEST = "03_the_network"
GITHUB = "https://github.com/somebody/umtlib.git"
ADDRESS = repository.address()


@pytest.fixture
def pip(monkeypatch):
    """Commands that would be run, with the constraints that pip is given."""
    seen = []

    def note(command, **_):
        seen.append((command, Path(command[command.index("--constraint") + 1]).read_text()))

    monkeypatch.setattr(colab, "subprocess", types.SimpleNamespace(run=note))
    return seen


@pytest.fixture
def on_colab(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))


@pytest.fixture
def shell(monkeypatch, tmp_path):
    """IPython, as it begins in Colab's ``/content``."""
    content = tmp_path / "content"
    content.mkdir()
    monkeypatch.chdir(content)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield InteractiveShell()
    tmp_path.chmod(0o700)


@pytest.fixture
def cloned(tmp_path):
    """The address of a repository with the few files that the first cell looks at."""
    folder = tmp_path / "there"
    (folder / "notebooks").mkdir(parents=True)
    (folder / "notebooks/a.ipynb").write_text("{}")
    shutil.copytree(REPOSITORY / "umtlib/notebook", folder / "umtlib/notebook")
    git = ["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run([*git, *words], check=True)
    return folder.as_uri()


@pytest.mark.skipif(not shutil.which("git"), reason="no git")
def test_first_cell_on_colab(shell, cloned, pip, on_colab, monkeypatch, capfd, tmp_path):
    monkeypatch.setattr(colab, "version", versions({"torch": "2.11", "ipywidgets": "7.7.1"}))
    tmp_path.chmod(0o500)  # nothing is written beside the working directory
    cell, content = repository.CELL.format(address=cloned), Path.cwd()
    for again in (False, False, True):
        if again:  # as after a restart of the runtime
            os.chdir(content)
        shell.run_cell(cell).raise_error()
        assert Path.cwd() == content / "umtlib/notebooks"
    assert [path.name for path in content.iterdir()] == ["umtlib"]
    said = capfd.readouterr().out
    assert "torch==2.11" in said and "Ready" in said
    command, pins = pip[0]
    assert command[-3:-1] == ["--editable", ".."] and "ipywidgets==7.7.1\n" in pins


def versions(known):
    def version(name):
        if name not in known:
            raise colab.PackageNotFoundError(name)
        return known[name]

    return version


def test_first_cell_without_an_address_says_one_line(shell, pip, on_colab, capfd):
    shell.run_cell(repository.CELL.format(address="")).raise_error()
    said = capfd.readouterr().out
    assert said.count("\n") == 1 and "Write the address" in said and pip == []


def test_first_cell_does_nothing_elsewhere(shell, pip, capfd):
    shell.run_cell(repository.CELL.format(address=GITHUB)).raise_error()
    assert (pip, [*Path.cwd().iterdir()], capfd.readouterr().out) == ([], [], "")


def test_what_is_installed_is_not_installed_again(pip, monkeypatch):
    monkeypatch.setattr(colab, "version", versions({"umtlib": "1", "anywidget": "1"}))
    (said,) = colab.set_up()
    assert pip == [] and "Ready" in said


# --- the address ----------------------------------------------------------------------------------


@pytest.fixture
def named(tmp_path, monkeypatch):
    """Write an address to a copy of what has one; gives what is in its files then, by name."""
    shutil.copytree(REPOSITORY / "notebooks", tmp_path / "notebooks")
    shutil.copy(REPOSITORY / "README.md", tmp_path)
    monkeypatch.setattr(repository, "ROOT", tmp_path)

    def name(address):
        (tmp_path / "pyproject.toml").write_text(f"[tool.umtlib]\nrepository = '{address}'\n")
        repository.main()
        return contents(tmp_path)

    return name


def contents(folder):
    files = [*(folder / "notebooks").glob("*.ipynb"), folder / "README.md"]
    return {path.name: path.read_text(encoding="utf-8") for path in files}


def test_address_is_written_and_taken_away_again(named):
    assert named(ADDRESS) == contents(REPOSITORY), "run scripts/repository.py"
    written = named(GITHUB)
    for name, text in written.items():
        page = "01_quickstart.ipynb" if name == "README.md" else name
        assert f"somebody/umtlib/blob/main/notebooks/{page})" in text
        assert name == "README.md" or json.dumps(f'REPOSITORY = "{GITHUB}"')[1:-1] in text
    assert named(GITHUB) == written, "doing it again changes nothing"
    assert named(ADDRESS) == contents(REPOSITORY)


@pytest.mark.parametrize("address", ["https://example.org/umtlib", "git@host:me/umtlib.git", ""])
def test_no_badge_where_colab_cannot_look(address):
    assert repository.badge(address, "a.ipynb") == ""


@pytest.mark.parametrize("address", ['a"; import os', "$(rm)", "a b"])
def test_an_address_that_is_none_is_refused(named, address):
    with pytest.raises(SystemExit, match="is no address"):
        named(address)


# --- data and wheel -------------------------------------------------------------------------------


def test_data_of_the_repository():
    assert (notebook.data("examples/whistle.wav")).is_file()
    with pytest.raises(errors.CorpusError, match="nothing"):
        notebook.data("nothing")


@pytest.mark.slow
def test_wheel_holds_all_that_notebooks_need(tmp_path):
    pytest.importorskip("hatchling")
    site = outside.install(tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 40 * 2**20
    for name in ("data/mini/paired", "data/mini-nsynth", "data/examples/whistle.wav",
                 "docs/training.json", "docs/departures.csv", "notebook/front.js"):  # fmt: skip
        assert (site / "umtlib" / name).exists(), name
    outside.run(QUICKEST, site, tmp_path)  # all of them: scripts/outside.py
