"""What students and teachers get: no solutions for the ones, all answers for the others."""

import pkgutil
import re

import course
import nbformat
import plant_faults
import pytest

SOLUTION = "<details>\n<summary>Show the solution</summary>\n\n{}\n\n</details>\n\n"
EXERCISES = (
    "## 7.3 Exercises\n\n**Exercise 1.** Add.\n\n"
    + SOLUTION.format("Like this:\n\n```python\nprint(1 + 1)\n```")
    + "**Exercise 2: why?**\n\n"
    + SOLUTION.format("Because.")
    + "## 7.4 Self-test\n\nWho?\n\n<details><summary>Answer</summary>Me.</details>\n\nNext."
)


def notebook(*sources):
    made = {str: nbformat.v4.new_markdown_cell, bytes: nbformat.v4.new_code_cell}
    return nbformat.v4.new_notebook(cells=[
        made[type(source)](source if isinstance(source, str) else source.decode())
        for source in sources
    ])  # fmt: skip


def test_students_get_tasks_but_no_solutions():
    made = course.students(notebook(b"x = 1", EXERCISES), 7)
    nbformat.validate(made)
    text = "\n".join(cell.source for cell in made.cells if cell.cell_type == "markdown")
    assert "Add." in text and "why?" in text and "Me." in text and "Next." in text
    assert "Because" not in text and "1 + 1" not in text
    first, todo = (cell for cell in made.cells if cell.cell_type == "code")
    assert first.source == "x = 1" and todo.execution_count is None
    with pytest.raises(NotImplementedError, match=r"7\.1"):
        exec(todo.source)


def test_guide_is_that_of_the_notebooks():
    made = course.guide(course.known(), course.course())
    assert course.GUIDE.read_text("utf-8") == made, "run make course"
    assert set(course.course()) == set(course.known()["notebook"])


def test_every_notebook_has_faults_that_it_must_notice():
    for name in course.course():
        faults = plant_faults.FAULTS[name]
        assert len(faults) >= plant_faults.IN_CI, name
        for place in re.findall(r"plant\('([^']+)'", "".join(faults.values())):
            pkgutil.resolve_name(place)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("", None),
        ("def double(x):\n    return 2", "'4' became '2'"),
        ("double = None", None),  # an accident in a cell that checks nothing shows nothing
    ],
)
def test_fault_is_noticed_by_a_checked_cell_only(fault, says, tmp_path):
    checked = f"{plant_faults.MARK}\nprint(double(2))"
    made = notebook(b"", b"def double(x):\n    return 2 * x", b"double(1)", checked.encode())
    made.cells[-1].outputs = [nbformat.v4.new_output("stream", name="stdout", text="4\n")]
    assert plant_faults.noticed(made, tmp_path, fault) == says
