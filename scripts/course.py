"""Make the students' version of the course, and the teacher's guide.

::

    make course    # build/course/*.ipynb and docs/teaching.md

Students get the notebooks without outputs and without the solutions of the exercises; where a
solution is code there is a cell that fails until they solve it. The guide takes sections and
answers from the notebooks, and what only a teacher can know from ``docs/teaching.toml``.
"""

import math
import re
import tomllib
from collections.abc import Iterator

import nbformat

from notebooks import FOLDER
from umtlib.files import replacing

ROOT = FOLDER.parent
OUT = ROOT / "build" / "course"
GUIDE = ROOT / "docs" / "teaching.md"
EXERCISE = re.compile(r"^\*\*Exercise (\d+)", re.MULTILINE)
SELF_TEST = re.compile(  # a section, or an exercise of questions
    r"^(#+ |\*\*Exercise ).*(self-test|test yourself|the questions|do you remember)",
    re.MULTILINE | re.IGNORECASE,
)
FOLDED = re.compile(r"<details>\s*<summary>.*?</summary>\s*(.*?)</details>\s*", re.DOTALL)
SECTION = re.compile(r"^## (\d+\.\d+.*)", re.MULTILINE)
CODE = re.compile(r"^```python\n", re.MULTILINE)
WORDS, RUNNING, SOLVING, ASKING = 120, 1, 6, 2  # words a minute; minutes for each of the others
HOW = f"""Minutes are counted, not measured: {WORDS} words a minute, {RUNNING} minute for a cell,
{SOLVING} for an exercise, {ASKING} for a question of the self-test."""
TABLE = [
    "| notebook | minutes in class | without exercises | in 90 minutes, skip |",
    "|" + 4 * "---|",
]
TODO = """# TODO exercise {0}: put your solution in the place of the next line
raise NotImplementedError("exercise {0} is not solved yet")"""


def pieces(text: str) -> Iterator[tuple[str, str | None, str]]:
    """Cut a text behind each exercise: yield its text, its number and its solution.

    The last text, which follows the last exercise, has no number.
    """
    start = 0
    for folded in FOLDED.finditer(text):
        before = text[start : folded.start()]
        exercises = list(EXERCISE.finditer(before))
        if exercises and not SELF_TEST.search(before):
            yield before.strip(), exercises[-1][1], folded[1].strip()
            start = folded.end()
    yield text[start:].strip(), None, ""


def students(notebook, chapter: int):
    """Return a notebook as students get it."""
    cells = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cells.append(nbformat.v4.new_code_cell(cell.source, id=cell.id))
            continue
        for part, (text, number, solution) in enumerate(pieces(cell.source)):
            if text:
                cells.append(nbformat.v4.new_markdown_cell(text, id=f"{cell.id}-{part}"))
            if CODE.search(solution):
                todo = TODO.format(f"{chapter}.{number}")
                cells.append(nbformat.v4.new_code_cell(todo, id=f"{cell.id}-todo-{number}"))
    return nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)


def minutes(notebook) -> dict[str, int]:
    """Return the minutes that each section takes in class, by title."""
    taken, section = {}, None
    for cell in notebook.cells:
        if cell.cell_type == "code":
            if section:
                taken[section] += RUNNING
            continue
        parts = SECTION.split(cell.source)
        for title, text in zip([None, *parts[1::2]], parts[::2], strict=True):
            section = title or section
            if section:
                read = len(FOLDED.sub("", text).split()) / WORDS
                exercises, folded = len(EXERCISE.findall(text)), len(FOLDED.findall(text))
                solved = SOLVING * exercises + ASKING * max(0, folded - exercises)
                taken[section] = taken.get(section, 0) + read + solved
    return {title: math.ceil(time) for title, time in taken.items()}


def answers(notebook) -> Iterator[str]:
    """Yield each exercise's name with its solution."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for text, number, solution in pieces(cell.source):
                if number:
                    title = re.findall(r"^\*\*Exercise \d.*?\*\*", text, re.MULTILINE)[-1]
                    yield f"{title}\n\n{solution}"


def guide(course: dict, notebooks: dict) -> str:
    """Return the teacher's guide."""
    rows, chapters = [*TABLE], []
    for name, notebook in notebooks.items():
        about, taken = course["notebook"][name], minutes(notebook)
        title, solutions = f"[{about['title']}](../notebooks/{name}.ipynb)", list(answers(notebook))
        total = sum(taken.values())
        rows.append(f"| {title} | {total} | {total - SOLVING * len(solutions)} | {about['skip']} |")
        chapters.append(_chapter(title, about, taken, solutions))
    plans = [f"## {plan['title']}\n\n{plan['text'].strip()}" for plan in course["plan"]]
    head = [f"# {course['title']}", course["text"].strip(), "\n".join(rows), HOW]
    return "\n\n".join([*head, *plans, *chapters]) + "\n"


def _chapter(title: str, about: dict, taken: dict, solutions: list) -> str:
    sections = "\n".join(f"- {section}: {time} min" for section, time in taken.items())
    mistakes = "\n".join(f"- {mistake}" for mistake in about["mistakes"])
    text = re.sub(r"\]\((\d\d_\w+\.ipynb)", r"](../notebooks/\1", "\n\n".join(solutions))
    text = f"<details>\n<summary>Answers</summary>\n\n{text}\n\n</details>"
    ask = f"**Ask the class.** {about['ask']}"
    return "\n\n".join([f"## {title}", sections, "**Common mistakes**", mistakes, ask, text])


def course() -> dict:
    """Return the notebooks by name, in their order."""
    return {p.stem: nbformat.read(p, as_version=4) for p in sorted(FOLDER.glob("*.ipynb"))}


def known() -> dict:
    """Return what only a teacher can know."""
    return tomllib.loads((ROOT / "docs" / "teaching.toml").read_text("utf-8"))


if __name__ == "__main__":
    notebooks = course()
    OUT.mkdir(parents=True, exist_ok=True)
    for name, notebook in notebooks.items():
        nbformat.write(students(notebook, int(name[:2])), OUT / f"{name}.ipynb")
    with replacing(GUIDE) as part:
        part.write_text(guide(known(), notebooks), encoding="utf-8")
    print(f"{len(notebooks)} notebooks in {OUT.relative_to(ROOT)}, the guide in {GUIDE.name}")
