"""The pairwise benchmark: choice of pairs and methods, and that nothing is lost."""

from __future__ import annotations

import sys
from pathlib import Path

import dataset
import nibabel as nib
import numpy as np
import pairwise
import pytest
import summary

pytestmark = pytest.mark.slow


def test_pairs_use_each_subject_once_before_any_twice() -> None:
    chosen = dataset.choose_pairs(6, 8)
    assert chosen[:3] == [(0, 1), (2, 3), (4, 5)]
    assert sorted(chosen[3:6]) == [(1, 0), (3, 2), (5, 4)]
    assert len(set(chosen)) == 8
    assert len(dataset.choose_pairs(3, 100)) == 6


def fake_data(folder: Path, subjects: int) -> None:
    voxel = nib.Nifti1Image(np.ones((2, 2, 2), np.uint8), np.eye(4))
    for number in range(subjects):
        for place in ("", "derivatives/manual/"):
            anat = folder / f"{place}sub-{number}" / "anat"
            anat.mkdir(parents=True)
            voxel.to_filename(anat / f"sub-{number}_{'dseg' if place else 'T1w'}.nii.gz")
    (folder / "derivatives/manual/dseg.tsv").write_text("index\tname\n7\tPutamen\n")


class FakeTools:
    """Stands in for the processes: says what ran, and breaks where it is told to."""

    def __init__(self, broken: set[str], killed_after: int | None = None) -> None:
        self.broken, self.killed_after, self.ran = broken, killed_after, []

    def __call__(self, options, fixed, moving, method, folder, spacing=None) -> dict:
        if spacing is not None:
            return {}
        if self.killed_after == len(self.ran):
            raise KeyboardInterrupt
        self.ran.append((fixed.name, moving.name, method))
        if method in self.broken:
            return {"error": "it is broken."}
        row = {name: 0.5 for name, _, _ in summary.COLUMNS} | {"gpu_memory_gb": None}
        structures = [{"label": 7, "dice": 0.5, "hd95_mm": 2.0, "fixed_voxels": 8}]
        return {"row": row | {"version": "1"}, "structures": structures}


def start(monkeypatch, tools: FakeTools, *words: object) -> int:
    monkeypatch.setattr(pairwise, "run_job", tools)
    monkeypatch.setattr(sys, "argv", ["pairwise.py", *(str(word) for word in words)])
    return pairwise.main()


def test_failing_method_is_skipped_and_slow_method_runs_on_some_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    fake_data(tmp_path / "data", 6)
    tools = FakeTools(broken={"greedy"})
    words = [tmp_path / "data", "-n", 3, "-o", tmp_path / "out", "--slow-pairs", 1, "--markdown"]
    assert start(monkeypatch, tools, *words, "--methods", "greedy", "syns", "syn") == 0
    assert [method for *_, method in tools.ran] == ["greedy", "syns", "syn", "syn", "syn"]
    shown = capsys.readouterr().out
    assert "left out: it is broken." in shown
    assert "sub-0 <- sub-1" in shown
    assert "Means over 3 pairs\n\n| method |" in shown
    assert "Means over 1 pair on which ANTs SyN[s] ran too" in shown
    assert (tmp_path / "out" / "dice_seconds.png").stat().st_size > 5000
    structures = (tmp_path / "out" / "structures.tsv").read_text().splitlines()
    assert structures[1] == "sub-0\tsub-1\tsyns\t7\tPutamen\t0.5\t2\t8"


def test_killed_run_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    fake_data(tmp_path / "data", 4)
    words = [tmp_path / "data", "-n", 2, "-o", tmp_path / "out", "--methods", "affine", "syn"]
    with pytest.raises(KeyboardInterrupt):
        start(monkeypatch, FakeTools(set(), killed_after=3), *words)
    # Killed between the structures and the row of the pair that was running.
    with (tmp_path / "out" / "structures.tsv").open("a") as file:
        file.write("sub-2\tsub-3\tsyn\t7\tPutamen\t0.5\t2\t8\n")
    assert start(monkeypatch, FakeTools(set()), *words) == 2
    assert "--resume" in capsys.readouterr().out
    assert start(monkeypatch, FakeTools(set()), *words, "--resume", "--threads", 1) == 2
    assert "another threads" in capsys.readouterr().out
    tools = FakeTools(set())
    assert start(monkeypatch, tools, *words, "--resume") == 0
    assert tools.ran == [("sub-2", "sub-3", "syn")]
    for name in ("pairs.tsv", "structures.tsv"):
        assert len((tmp_path / "out" / name).read_text().splitlines()) == 5


def test_all_pairs_of_chosen_brains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    fake_data(tmp_path / "data", 5)
    words = [tmp_path / "data", "-o", tmp_path / "out", "--methods", "syn", "--markdown"]
    assert start(monkeypatch, FakeTools(set()), *words, "-n", 1) == 0
    capsys.readouterr()
    tools = FakeTools(set())
    chosen = ["--participant-label", "2", "sub-4", "3", "--all-pairs", "--resume"]
    assert start(monkeypatch, tools, *words, *chosen) == 0
    names = ("sub-2", "sub-3", "sub-4")
    pairs = {(one, two, "syn") for one in names for two in names if one != two}
    assert set(tools.ran) == pairs
    # The row of sub-0 and sub-1 stays in the file, and out of the means.
    assert "Means over 6 pairs\n" in capsys.readouterr().out
    assert len((tmp_path / "out" / "pairs.tsv").read_text().splitlines()) == 8
    assert start(monkeypatch, tools, *words, "--participant-label", "9", "8") == 2
    assert "no T1w and dseg image of 9, 8" in capsys.readouterr().out


def test_strengths_are_run_by_methods_that_have_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    fake_data(tmp_path / "data", 2)
    tools = FakeTools(set())
    words = [tmp_path / "data", "-n", 1, "-o", tmp_path / "out", "--methods", "greedy", "affine"]
    assert start(monkeypatch, tools, *words, "--strengths", 2, 1, 0.5) == 0
    assert [method for *_, method in tools.ran] == ["greedy", "greedy@0.5", "greedy@2", "affine"]
    assert "greedy × 0.5" in capsys.readouterr().out
    assert (tmp_path / "out" / "dice_sdlogj.png").exists()


@pytest.mark.parametrize(
    ("names", "cortical"),
    [
        ({}, [100, 1002]),
        ({7: "Left Hippocampus", 100: "Right ACgG anterior cingulate gyrus"}, [100, 1002]),
        ({7: "ctx-lh-insula", 100: "Left-Thalamus", 1002: "ctx-rh-insula"}, [7, 1002]),
    ],
    ids=["no table", "MICCAI 2012", "FreeSurfer"],
)
def test_cortical_labels(names: dict[int, str], cortical: list[int]) -> None:
    structures = [{"label": label, "dice": label / 2000} for label in (7, 100, 1002)]
    assert [n for n in (7, 100, 1002) if dataset.is_cortical(n, names)] == cortical
    means = dataset.group_means(structures, names)
    assert means["dice_cortical"] == pytest.approx(sum(cortical) / 4000)
    assert dataset.group_means(structures[:1], {})["dice_cortical"] is None
