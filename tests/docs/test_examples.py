"""The examples in the docs work: their commands parse, and what takes seconds is run.

Every code block is checked, or says why not in a comment above it::

    <!-- not run: needs SLURM -->

Words in capitals stand for a file, a folder, a number or a name (`PLACEHOLDERS`); ``[X ...]`` is
optional, and ``{a,b}`` a choice.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import bids_fcnreg as fr
from bids_fcnreg.bids.builtin_templates import nilearn_map
from bids_fcnreg.bids.filters import read_filter_file
from bids_fcnreg.cli import fcnreg, options
from bids_fcnreg.errors import FcnregError
from bids_fcnreg.execution.cluster import read_plugin

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

#: What words in capitals stand for, in the folder of `example_files`.
PLACEHOLDERS = {
    **dict.fromkeys(("BIDS_DIR", "DATA", "DIR"), "bids"),
    **dict.fromkeys(("OUTPUT_DIR", "OUT_DIR", "OUT", "OUT_LONG", "PREFIX"), "derivatives"),
    **dict.fromkeys(("WORK_DIR", "SHARED_FOLDER"), "work"),
    **dict.fromkeys(("FIXED", "REFERENCE"), "template.nii.gz"),
    **dict.fromkeys(("MOVING", "IMAGE"), "brain.nii.gz"),
    **{"XFM": "out/brain_xfm.h5", "TABLE": "table.tsv", "KIND": "linear"},
    **{"N": "2", "LABEL": "01", "NAME": "Small"},
}

#: Commands of `fcnreg` that take seconds.
QUICK = ("register", "apply", "convert", "jacobian")


@dataclass(frozen=True)
class Block:
    """A code block of a page."""

    line: int
    language: str
    text: str
    excuse: str | None


def blocks(page: str) -> list[Block]:
    """Find the code blocks of a page of Markdown, but for directives of Sphinx."""
    pattern = r"(?:^<!-- not run: (.+?) -->\n+)?^```(.*)\n((?:.*\n)*?)```$"
    return [
        Block(page[: one.start(2)].count("\n") + 1, one[2], one[3], one[1])
        for one in re.finditer(pattern, page, re.MULTILINE)
        if not one[2].startswith("{")
    ]


def commands(text: str) -> Iterator[list[str]]:
    """Split a block of shell commands into the words of each command, for each choice."""
    for line in text.replace("\\\n", " ").splitlines():
        line = re.sub(r"\[(-- OPTIONS|options of \w+|MOVING \.\.\.)\]|\.\.\.", "", line)
        parts = re.split(r"\{([\w,]+)\}", line.replace("[", " ").replace("]", " "))
        choices = (part.split(",") if n % 2 else [part] for n, part in enumerate(parts))
        for chosen in itertools.product(*choices):
            yield [fill(word) for word in shlex.split("".join(chosen))]


def fill(word: str) -> str:
    """Replace the placeholders in a word."""
    return re.sub(r"\b[A-Z_]+\b", lambda one: PLACEHOLDERS.get(one[0], one[0]), word)


def our_arguments(words: list[str]) -> tuple[str, list[str]] | None:
    """Return our command within a command, and its arguments."""
    program, *arguments = words
    if program in ("bids_fcnreg", "fcnreg"):
        return program, arguments
    if program == "antsApplyTransforms":  # fcnreg apply has its options
        return "fcnreg", ["apply", *arguments]
    if program in ("python", "torchrun") and "-m" in words:
        module, *arguments = words[words.index("-m") + 1 :]
        return module.rpartition(".")[2], arguments
    if words[1:2] == ["run"]:
        image = next(n for n, word in enumerate(words) if word.startswith("bids_fcnreg"))
        # Instead of the paths of the directories in the container.
        return "bids_fcnreg", ["bids", "derivatives", *words[image + 3 :]]
    return None


def check_command(words: list[str]) -> bool:
    """Check a command as far as it is ours; return whether any of it is.

    Raises
    ------
    AssertionError
        If its arguments are wrong, or a file does not exist.
    """
    if ours := our_arguments(words):
        program, arguments = ours
        parse = {
            "bids_fcnreg": options.parse_arguments,
            "fcnreg": fcnreg.build_parser().parse_args,
        }
        without_error(parse[program], arguments)
    elif words[0] == "python":
        without_error(partial(parse_as_script, ROOT / words[1]), words[2:])
    elif words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words[1:]) <= set(targets)
    elif words[0].startswith("docker/"):
        assert (ROOT / words[0]).stat().st_mode & 0o111, f"{words[0]} cannot be run"
    else:
        return words[0] == "export"
    return True


def without_error(parse: Callable[[list[str]], object], arguments: list[str]) -> None:
    try:
        parse(arguments)
    except (SystemExit, FcnregError) as error:
        raise AssertionError(f"{shlex.join(arguments)}: {error}") from error


def parse_as_script(script: Path, arguments: list[str]) -> None:
    """Parse the arguments of a benchmark with the parser that it makes."""

    class Parsed(Exception):
        pass

    def parse_and_stop(parser: argparse.ArgumentParser, *_: object) -> None:
        parse(parser, arguments)
        raise Parsed

    parse = argparse.ArgumentParser.parse_args
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Parsed):
        patch.syspath_prepend(script.parent)
        patch.setattr(sys, "argv", [str(script), *arguments])
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
        runpy.run_path(str(script), run_name="__main__")


def check_block(block: Block, folder: Path) -> list[str]:
    """Check a block as far as that takes no time; return what nothing checks."""
    if block.language == "python":  # see test_python_blocks_run
        return []
    if block.language == "":
        return [shlex.join(words) for words in commands(block.text) if not check_command(words)]
    path = folder / f"block.{block.language}"
    path.write_text(block.text)
    if block.language == "json":
        assert read_filter_file(path).keys() == json.loads(block.text).keys()
        return []
    if block.language == "yaml":
        assert read_plugin(path, folder)
        return []
    return [block.text]


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> Path:
    """Folder of a template, a brain, and the transforms between them; sbatch in its bin."""
    folder = tmp_path_factory.mktemp("examples")
    for name in ("bids", "derivatives", "out", "work", "bin"):
        (folder / name).mkdir()
    (folder / "bin/sbatch").touch(mode=0o755)
    (folder / "subjects.txt").write_text("01\n")
    template = nib.load(nilearn_map("t1")).slicer[::3, ::3, ::3]
    data = np.asarray(template.dataobj)
    labels = (data > 0).astype(np.uint8) + (data > data.mean())
    moved = template.affine.copy()
    moved[:3, 3] += (3, -4, 5)
    for name, voxels, affine in (
        ("template", data, template.affine),
        ("atlas", labels, template.affine),
        ("brain", data, moved),
        ("sub-01_desc-preproc_T1w", data, moved),
        ("labels", labels, moved),
    ):
        nib.Nifti1Image(voxels, affine).to_filename(folder / f"{name}.nii.gz")
    found = fr.register(folder / "template.nii.gz", folder / "brain.nii.gz", mode="predict")
    found.save(folder / "out/brain_")
    for made, name in (("xfm", "T1w_to-TPL"), ("inverse_xfm", "TPL_to-T1w")):
        copy = folder / f"sub-01_from-{name}_mode-image_xfm.h5"
        shutil.copy(folder / f"out/brain_{made}.h5", copy)
    return folder


@pytest.fixture
def example_files(originals, tmp_path, monkeypatch) -> Path:
    """Folder with the files that the examples name; the current one."""
    folder = shutil.copytree(originals, tmp_path / "examples")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", str(folder / "bin"), prepend=os.pathsep)
    return folder


#: Code in a line of text that is a command of ours, or of antsApplyTransforms, with arguments.
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
COMMAND = re.compile(r"(bids_fcnreg|fcnreg|antsApplyTransforms) \S+ .+")


def test_commands_side_by_side_are_those_of_the_parser(example_files):
    page = (ROOT / "docs/coming_from.md").read_text(encoding="utf-8")
    found = [code for code in INLINE.findall(page) if COMMAND.fullmatch(code)]
    assert len(found) > 30
    for command in found:
        # Brackets are of ANTs' inverse transforms here, not of what is optional.
        assert check_command([fill(word) for word in shlex.split(command)]), command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_checked(page, example_files):
    for block in blocks(page.read_text(encoding="utf-8")):
        where = f"{page.name}, line {block.line}"
        try:
            unchecked = check_block(block, example_files)
        except AssertionError as error:
            raise AssertionError(f"{where}: {error}") from error
        assert bool(unchecked) == bool(block.excuse), (
            f"{where}: {unchecked or 'all is checked'}; not run: {block.excuse}"
        )


def pages_with(condition: Callable[[Block], bool]) -> list[Path]:
    return [page for page in PAGES if any(map(condition, blocks(page.read_text("utf-8"))))]


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", pages_with(lambda block: block.language == "python"), ids=lambda page: page.name
)
def test_python_blocks_run(page, example_files, monkeypatch):
    """One after the other, in one namespace; registrations without refinement, which is slow."""
    monkeypatch.setattr(fr, "register", partial(fr.register, mode="predict"))
    names: dict[str, object] = {}
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.language == "python":
            source = "\n" * block.line + block.text  # for the line numbers of errors
            exec(compile(source, str(page), "exec"), names)  # noqa: S102  # our own pages


def quick_commands(block: Block) -> list[list[str]]:
    """Arguments of the commands of `fcnreg` in a block that take seconds."""
    if block.language:
        return []
    found = (our_arguments(words) for words in commands(block.text) if words)
    return [one[1] for one in found if one and one[0] == "fcnreg" and one[1][0] in QUICK]


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with(quick_commands), ids=lambda page: page.name)
def test_quick_commands_run(page, example_files, monkeypatch):
    monkeypatch.setitem(PLACEHOLDERS, "OUT", "result.nii.gz")
    for block in blocks(page.read_text(encoding="utf-8")):
        for arguments in quick_commands(block):
            assert fcnreg.main(arguments) == 0, arguments
            output = arguments[arguments.index("-o") + 1]
            assert list(example_files.glob(f"{output}*")), output


PAGE = """
```
fcnreg phantom DIR --participants N
bids_fcnreg BIDS_DIR OUT group [--group-task {report,template}] \\
    [--template-name NAME]
```

<!-- not run: needs a cluster -->
```
sbatch job
```

```{toctree}
no block
```
"""


def test_blocks_are_found():
    found = [(block.line, block.excuse) for block in blocks(PAGE)]
    assert found == [(2, None), (9, "needs a cluster")]


def test_commands_are_split_and_filled():
    first, *group = commands(blocks(PAGE)[0].text)
    assert first == ["fcnreg", "phantom", "bids", "--participants", "2"]
    expected = "bids_fcnreg bids derivatives group --group-task {} --template-name Small"
    assert [shlex.join(words) for words in group] == [
        expected.format(task) for task in ("report", "template")
    ]


@pytest.mark.parametrize(
    "command",
    [
        "bids_fcnreg bids derivatives participant --no-such-option",
        "bids_fcnreg bids derivatives participant --mode worst",
        "bids_fcnreg bids derivatives group --group-task train --mode optimize",
        "fcnreg register template.nii.gz -o out/brain_",
        "docker run -v bids:/data bids_fcnreg /data /out participants",
        "python -m bids_fcnreg bids derivatives",
        "torchrun -m bids_fcnreg.cli.fcnreg train bids",
        "python benchmarks/pairwise.py bids --no-such-option",
        "make no-such-target",
    ],
)
def test_wrong_commands_are_found(command, example_files):
    with pytest.raises(AssertionError):
        check_command(shlex.split(command))


def test_other_commands_are_not_checked(example_files):
    assert not check_command(["sbatch", "job"])
    assert check_block(Block(1, "", "ls\nmake test\n", None), example_files) == ["ls"]
    assert check_block(Block(1, "toml", "a = 1\n", None), example_files) == ["a = 1\n"]


def test_the_docs_hold_many_examples():
    found = [block for page in PAGES for block in blocks(page.read_text(encoding="utf-8"))]
    assert len(found) > 30
    assert sum(block.excuse is None for block in found) > 25
