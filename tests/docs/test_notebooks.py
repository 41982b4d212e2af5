"""The notebooks of the docs run, and show what they tell."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import pytest
from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))
from notebook_cells import split_cells, write_jupyter  # noqa: E402

NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.md"))

#: Modules of the commands, which need not be on the path.
MODULES = {"bids_fcnreg": "bids_fcnreg", "fcnreg": "bids_fcnreg.cli.fcnreg"}


def run_command(line: str) -> None:
    """Run a line that starts with ! in a notebook."""
    program, *arguments = shlex.split(line)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", MODULES[program], *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


def run_notebook(name: str, directory: Path) -> dict[str, Any]:
    """Run the code cells of a notebook in a directory, and return its variables.

    The last expression of each cell is shown, as in Jupyter.
    """
    page = ROOT / f"docs/notebooks/{name}.md"
    with contextlib.chdir(directory), warnings.catch_warnings():
        warnings.simplefilter("default")  # those of nilearn are no concern of the reader
        try:
            return run_cells(page)
        finally:
            plt.close("all")


def run_cells(page: Path) -> dict[str, Any]:
    """Run the code cells of a page in the current directory, and return its variables."""
    names: dict[str, Any] = {"run_command": run_command}
    code = [text for kind, text in split_cells(page.read_text("utf-8")) if kind == "code"]
    for number, text in enumerate(code):
        source = re.sub(r"^!(.*)$", lambda line: f"run_command({line[1]!r})", text, flags=re.M)
        tree = ast.parse(source)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"{page.name}, cell {number}", "exec"), names)  # noqa: S102  # ours
        if last is not None:
            shown = eval(compile(ast.Expression(last.value), page.name, "eval"), names)  # noqa: S307
            getattr(shown, "_repr_html_", shown.__repr__)()
    return names


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """Directory and variables of the notebook of a study, in which that of a template continues."""
    directory = tmp_path_factory.mktemp("study")
    return directory, run_notebook("study", directory)


@pytest.mark.slow
def test_pair(tmp_path):
    shown = run_notebook("pair", tmp_path)
    assert shown["result"].quality["verdict"] == "good"
    assert shown["error"].max() < 3
    assert (tmp_path / "sub-01_to_template_xfm.h5").is_file()


@pytest.mark.slow
def test_study(study):
    directory, shown = study
    assert len(shown["volumes"]) == len(shown["usable"]) == 2
    assert shown["volumes"].GM_share.between(0.4, 0.7).all()
    assert (directory / "derivatives/group.html").is_file()


@pytest.mark.slow
def test_template(study):
    directory, _ = study
    shown = run_notebook("template", directory)
    assert shown["labels"].get_fdata().any()
    assert (directory / "derivatives/tpl-Mine").is_dir()


@pytest.mark.parametrize("page", NOTEBOOKS, ids=lambda page: page.stem)
def test_jupyter_gets_the_same_cells(page, tmp_path):
    text = page.read_text(encoding="utf-8")
    copy = tmp_path / page.name
    copy.write_text(text, encoding="utf-8")
    written = json.loads(write_jupyter(copy).read_text(encoding="utf-8"))
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in written["cells"]]
    assert cells == split_cells(text)
    assert text.count("```{code-cell}") == sum(kind == "code" for kind, _ in cells)
    assert cells[0][1].startswith("# ")


def test_cells_are_split():
    page = textwrap.dedent(
        """\
        ---
        kernelspec:
          name: python3
        ---
        # Title

        ```{code-cell} ipython3
        a = 1

        b = 2
        ```

        ```python
        not a cell
        ```
        """
    )
    assert split_cells(page) == [
        ("markdown", "# Title"),
        ("code", "a = 1\n\nb = 2"),
        ("markdown", "```python\nnot a cell\n```"),
    ]
