"""Wrong datasets, words and files beside the scans: each has its sentence, and nothing is run."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bids_fcnreg import __version__
from bids_fcnreg.bids.builtin_templates import nilearn_map
from bids_fcnreg.cli import bids_app
from bids_fcnreg.fcn.nets import checkpoint
from bids_fcnreg.fcn.nets.packaged_weights import packaged_weights

#: Makes what is wrong, in a folder that holds a dataset, ``in``; gives more words for the command.
Case = Callable[[Path], list[object]]


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("exploded",)


def save(path: Path, data: np.ndarray, zoom: float = 2.0) -> Path:
    nib.Nifti1Image(data, np.diag([zoom, zoom, zoom, 1.0])).to_filename(path)
    return path


def written(name: str, text: str, *words: str) -> Case:
    """A file, which follows the words."""

    def make(folder: Path) -> list[object]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
        return [*words, folder / name] if words else []

    return make


def said(*words: object) -> Case:
    return lambda folder: list(words)


def piped(name: str, *words: str) -> Case:
    """A pipe, at which one would wait for ever, in place of a file."""

    def make(folder: Path) -> list[object]:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
        return [*words, folder / name] if words else []

    return make


def removed(name: str) -> Case:
    def make(folder: Path) -> list[object]:
        (folder / name).unlink()
        return []

    return make


def template(
    data: np.ndarray,
    mask: np.ndarray | None = None,
    zoom: float = 2.0,
    name: str = "tpl-Own_T1w.nii.gz",
) -> Case:
    def make(folder: Path) -> list[object]:
        path = save(folder / name, data)
        if mask is not None:
            save(folder / "tpl-Own_desc-brain_mask.nii.gz", mask, zoom)
        return ["--template", path]

    return make


def atlas(change: Callable[[np.ndarray], np.ndarray], table: str | None = None) -> Case:
    """Labels on the grid of the built-in template."""

    def make(folder: Path) -> list[object]:
        brain = nib.load(nilearn_map("t1"))
        labels = change((brain.get_fdata() > 0).astype("float32"))
        nib.Nifti1Image(labels, brain.affine).to_filename(folder / "atlas.nii.gz")
        if table is not None:
            (folder / "atlas.tsv").write_text(table)
        return ["--atlas", folder / "atlas.nii.gz"]

    return make


def many(labels: np.ndarray) -> np.ndarray:
    """A label of its own for each voxel of the brain."""
    counted = np.zeros_like(labels)
    counted[labels > 0] = np.arange(1, int((labels > 0).sum()) + 1)
    return counted


def pickled(folder: Path) -> list[object]:
    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    return ["--model", folder / "model.safetensors"]


def torch_pickled(folder: Path) -> list[object]:
    torch.save({"network": Bomb()}, folder / "model.pt")
    return ["--model", folder / "model.pt"]


def foreign(folder: Path) -> list[object]:
    save_file({"x": torch.zeros(3)}, folder / "model.safetensors")
    return ["--model", folder / "model.safetensors"]


def numberless(folder: Path) -> list[object]:
    """Weights of which one is no number."""
    network, _ = checkpoint.load(packaged_weights("diffeomorphic"))
    next(network.parameters()).data.view(-1)[0] = np.nan
    checkpoint.save(network, folder / "model.safetensors")
    return ["--model", folder / "model.safetensors"]


def misnamed(folder: Path) -> list[object]:
    folder.joinpath("in/sub-01/anat/sub-01_T1w.nii.gz").rename(folder / "in/sub-01/anat/T1.nii.gz")
    return []


def circle(folder: Path) -> list[object]:
    (folder / "circle").symlink_to("circle")
    return ["-w", folder / "circle"]


HEAD = np.random.default_rng(0).integers(1, 900, (20, 20, 20)).astype("int16")
DESCRIPTION = "in/dataset_description.json"

CASES: dict[str, tuple[Case, str]] = {
    "no description": (removed(DESCRIPTION), "no dataset_description.json"),
    "description is no JSON": (written(DESCRIPTION, "{"), "not valid JSON"),
    "description is a list": (written(DESCRIPTION, "[]"), "dataset_description.json"),
    "description without version": (written(DESCRIPTION, '{"Name": "x"}'), "lacks BIDSVersion"),
    "names are not of BIDS": (misnamed, "no T1w image"),
    "no T1w": (removed("in/sub-01/anat/sub-01_T1w.nii.gz"), "no T1w image"),
    "participant unknown": (said("--participant-label", "77"), "Participant 77 is not in"),
    "participant with a path": (said("--participant-label", "../01"), "is not in"),
    "participant of 5000": (said("--participant-label", "a" * 5000), "aaa… is not in"),
    "participant with commas": (said("--participant-label", "01,02"), "Separate labels by spaces"),
    "participant empty": (said("--participant-label", ""), "Participant '' is not in"),
    "session unknown": (said("--session-label", "z"), "Session z is not in"),
    "session with a path": (said("--session-label", "../z"), "is not in"),
    "filter is no JSON": (written("f.json", "{", "--bids-filter-file"), "f.json cannot be read"),
    "filter of nothing": (
        written("f.json", '{"t1w": {"acquisition": "none"}}', "--bids-filter-file"),
        "no T1w image",
    ),
    "filter of an unknown entity": (
        written("f.json", '{"t1w": {"aquisition": "x"}}', "--bids-filter-file"),
        "unknown entity aquisition",
    ),
    "filter of a huge number": (
        written("f.json", '{"t1w": {"run": 9223372036854775808}}', "--bids-filter-file"),
        "must be a string, a number of at most 18 digits",
    ),
    "filter is a pipe": (piped("f.json", "--bids-filter-file"), "f.json is not a"),
    "settings are a pipe": (piped("c.toml", "--config-file"), "c.toml cannot be read"),
    "description is a pipe": (piped(DESCRIPTION), "it is not a file"),
    "filter with a path": (
        written("f.json", '{"t1w": {"acquisition": "../../x"}}', "--bids-filter-file"),
        "no T1w image",
    ),
    "template unknown": (said("--template", "NoSuchTemplate"), "NoSuchTemplate"),
    "template with a path": (said("--template", "../../etc/passwd"), "passwd"),
    "template is text": (written("tpl-X_T1w.nii.gz", "no", "--template"), "cannot be read"),
    "template is flat": (template(HEAD[:, :, 3]), "not that of a 3D volume"),
    "template has another mask": (template(HEAD, HEAD[:9], 3), "is not on the grid"),
    "template of one value": (template(np.full_like(HEAD, 7)), "Provide the image, not its mask"),
    "template without a name": (
        template(HEAD, name="脳.nii.gz"),
        "cannot be used as a label in output names",
    ),
    "template of a long name": (
        template(HEAD, name=f"{'a' * 150}.nii.gz"),
        "cannot be used as a label in output names",
    ),
    "atlas unknown": (said("--atlas", "NoSuchAtlas"), "NoSuchAtlas"),
    "atlas of fractions": (atlas(lambda labels: labels / 2), "not whole numbers"),
    "atlas below zero": (atlas(lambda labels: -labels), "not whole numbers"),
    "atlas of a million labels": (atlas(many), "different values but has no lookup table"),
    "atlas of nothing": (atlas(np.zeros_like), "contains only zeros"),
    "table without columns": (atlas(np.copy, "a\tb\n1\tx\n"), "no column index"),
    "table with a label twice": (atlas(np.copy, "index\tname\n1\ta\n1\tb\n"), "index 1 twice"),
    "table with a word": (
        atlas(np.copy, "index\tname\nx\ta\n"),
        "has the index 'x', which is not a whole number",
    ),
    "weights are text": (
        written("m.safetensors", "no", "--model"),
        "is not a readable .safetensors",
    ),
    "weights of something else": (foreign, "was not written by `fcnreg train`"),
    "weights are a pickle": (pickled, "is not a readable .safetensors"),
    "weights are PyTorch's pickle": (torch_pickled, "is not a readable .safetensors"),
    "weights and optimize": (
        written("m.safetensors", "no", "--mode", "optimize", "--model"),
        "cannot be used with --mode optimize",
    ),
    "network without weights": (said("--network", "2017"), "no trained weights"),
    "device unknown": (said("--device", "tpu"), "--device must be one of"),
    "device that is not there": (said("--device", "cuda:99"), "PyTorch sees"),
    "settings with an unknown key": (
        written("c.toml", "nproc = 2", "--config-file"),
        "unknown key 'nproc'",
    ),
    "settings are no TOML": (written("c.toml", "a = ?", "--config-file"), "not valid TOML"),
    "settings nested without end": (
        written("c.toml", f"a = {'[' * 5000}", "--config-file"),
        "is not valid TOML",
    ),
    "settings with a home of nobody": (
        written("c.toml", 'work_dir = "~nobody-there/x"', "--config-file"),
        "must be a path",
    ),
    "path in a circle": (circle, "cannot be used"),
    "path too long": (said("-w", "/" + "a" * 300), "cannot be used"),
    "path with a zero": (said("-w", "a\0b"), "cannot be used"),
    "plugin file is text": (written("p.yml", "just text", "--use-plugin"), "plugin"),
    "plugin file with code": (
        written("p.yml", "!!python/object/apply:os.mkdir [exploded]", "--use-plugin"),
        "is invalid",
    ),
    "two that are mutually exclusive": (
        written("c.toml", "dry_run = true", "--reports-only", "--config-file"),
        "--dry-run and --reports-only are mutually exclusive",
    ),
    "weights without numbers": (numberless, "does not match the network"),
    "seed too large": (said("--random-seed", 2**64), "of at most"),
    "plugin of a cluster that is not here": (
        written("p.yml", "plugin: OAR", "--use-plugin"),
        "needs the command oarsub",
    ),
    "templates in the work directory are a file": (
        lambda folder: [
            *written(f"w/bids_fcnreg-{__version__}/templates", "x")(folder),
            *("-w", folder / "w"),
        ],
        "File exists",
    ),
    "no processor": (said("--nprocs", "0"), "at least 1"),
    "endless memory": (said("--mem", "inf"), "--mem"),
    "memory without number": (said("--mem", "nan"), "--mem"),
    "no memory": (said("--mem", "-1"), "--mem"),
    "work directory in the dataset": (
        lambda folder: ["-w", folder / "in/work"],
        "inside the BIDS",
    ),
    "work directory is a file": (written("w", "x", "-w"), "is a file"),
    **{
        f"work directory with a pattern, {name}": (
            lambda folder, name=name: ["-w", folder / name],
            "which Nipype reads as a pattern",
        )
        for name in ("w[1]", "w]", "w*", "w?", "old [a]/work")
    },
}


@pytest.fixture
def study(tmp_path, monkeypatch) -> Path:
    """A folder that holds a dataset of one participant, whose scan is not read here."""
    anat = tmp_path / "in/sub-01/anat"
    anat.mkdir(parents=True)
    (anat / "sub-01_T1w.nii.gz").touch()
    (tmp_path / DESCRIPTION).write_text(json.dumps({"Name": "x", "BIDSVersion": "1.10.0"}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys: pytest.CaptureFixture, sentence: str, *words: object) -> None:
    """Assert the exit code 2 and one sentence, and that no code of a file was run."""
    try:
        code = bids_app.main([str(word) for word in words])
    except SystemExit as stop:
        code = stop.code
    told = capsys.readouterr()
    assert code == 2, told
    assert told.err.count("\n") == 1 and told.err.startswith("bids_fcnreg: error: "), told.err
    assert sentence in told.err
    assert not Path("exploded").exists()


@pytest.mark.parametrize("name", CASES)
def test_bad_request_gets_one_message_and_writes_nothing(name, study, capsys):
    make, sentence = CASES[name]
    words = make(study)
    folder = ["-w", study / "work"] if "-w" not in words else []
    everything = [study / "in", study / "out", "participant", *words, *folder]
    if name.startswith(("plugin", "templates in")):  # it is read when there is something to run
        everything.append("--skip-bids-validation")
    refused(capsys, sentence, *everything)
    assert not list(study.glob("out/sub-*"))


def test_missing_synthstrip_is_refused_before_the_run(study, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(study))
    arguments = [study / "in", study / "out", "participant", "-w", study / "work"]
    arguments += ["--skull-strip-method", "synthstrip"]
    refused(capsys, "mri_synthstrip is not on the PATH", *arguments)
    unneeded = [*arguments, "--skull-strip-t1w", "skip", "--dry-run"]
    assert bids_app.main([str(argument) for argument in unneeded]) == 0
    assert not (study / "out").exists()


@pytest.mark.parametrize("out", ["in", "in/sub-01", "file", "/proc/here"])
def test_invalid_output_directory_is_refused(out, study, capsys):
    (study / "file").touch()
    refused(capsys, out.rpartition("/")[0] or out, "in", out, "participant", "-w", "work")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["group"], "holds no participant-level results"),
        (["group", "--group-task", "template"], "--template-name"),
        (["group", "--group-task", "template", "--template-name", "../x"], "template-name"),
        (["nobody"], "invalid choice"),
    ],
)
def test_bad_group_request_gets_one_message(words, sentence, study, capsys):
    (study / "out").mkdir()
    refused(capsys, sentence, "in", "out", *words)


@pytest.mark.parametrize("folder", ["Größe und Maß", "数据 集", "it's", "a;b&c", "-dash"])
def test_odd_names_of_folders_are_fine(folder, study, capsys):
    (study / "in").rename(study / folder)
    words = [study / folder, study / f"{folder} out", "participant", "--dry-run"]
    assert bids_app.main([str(word) for word in words]) == 0
    assert "sub-01: " in capsys.readouterr().out


def test_a_linked_dataset_is_fine(study, capsys):
    (study / "link").symlink_to("in")
    assert bids_app.main(["link", "out", "participant", "--dry-run"]) == 0
    assert "sub-01: " in capsys.readouterr().out
