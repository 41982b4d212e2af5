"""`fcnreg train`: real files, processes of its own, stopped and killed."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from bids_fcnreg.bids.training_images import Brain
from bids_fcnreg.cli.fcnreg import main
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.nets.checkpoint import load, save
from bids_fcnreg.training.aligned_images import split_held_out

# The command prints these warnings.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default::UserWarning")]

SHAPE, SPACING = (26, 30, 24), 8.0
STEPS = {
    "--held-out": [2],
    "--steps": [4, 2, 0],
    "--device": ["cpu"],
    "--nthreads": [1],
}


def brain(shift: tuple[float, float, float] = (0, 0, 0), size: float = 1.0) -> nib.Nifti1Image:
    """A coarse image of a lobed body with a dark core, moved by a shift in mm."""
    affine = np.diag([SPACING] * 3 + [1.0])
    affine[:3, 3] = [-SPACING * (n - 1) / 2 for n in SHAPE]
    points = np.moveaxis(np.indices(SHAPE), 0, -1) * SPACING + affine[:3, 3] - np.asarray(shift)
    x, y, z = np.moveaxis(points / size, -1, 0)
    lobes = 1 + 0.15 * np.cos(3 * np.arctan2(y, x)) + 0.1 * z / 60
    radius = np.sqrt((x / 62) ** 2 + (y / 78) ** 2 + (z / 55) ** 2) / lobes
    body = np.clip((1 - radius) * 8, 0, 1)
    core = np.clip((0.45 - np.hypot(radius, (x - 15) / 90)) * 10, 0, 1)
    return nib.Nifti1Image((100 * body - 55 * core).clip(0).astype("float32"), affine)


def words(folder: Path, model: str, *more: object) -> list[str]:
    data = sorted((folder / "dataset").glob("sub-*/anat/*.nii.gz"))
    output = [] if "-o" in more else ["-o", folder / model]
    options = {**STEPS, "--template": [folder / "template.nii.gz"]}
    given = [
        part for name, values in options.items() if name not in more for part in (name, *values)
    ]
    return [*map(str, ["train", *data, *output, *given, *more])]


def start(given: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bids_fcnreg.cli.fcnreg", *given]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Tests that a shell runs in the background inherit to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def curves(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A dataset of three brains and a file that is no image, a template, and a trained model."""
    folder = tmp_path_factory.mktemp("train")
    brain().to_filename(folder / "template.nii.gz")
    dataset = folder / "dataset"
    for n, shift in enumerate([(9, -5, 4), (-7, 3, 0), (2, 8, -6)], start=1):
        path = dataset / f"sub-0{n}" / "anat" / f"sub-0{n}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        brain(shift, 0.9 + 0.05 * n).to_filename(path)
    (dataset / "sub-04" / "anat").mkdir(parents=True)
    (dataset / "sub-04" / "anat" / "sub-04_T1w.nii.gz").write_text("no image")
    description = {"Name": "Bodies", "BIDSVersion": "1.10.0", "License": "CC0"}
    description["DatasetDOI"] = "10.1000/bodies"
    (dataset / "dataset_description.json").write_text(json.dumps(description))
    process = start(words(folder, "whole.safetensors"))
    printed, complaint = process.communicate(timeout=300)
    assert process.returncode == 0, complaint
    (folder / "printed.txt").write_text(printed)
    return folder


def test_weights_and_model_card(folder):
    network, checksum = load(folder / "whole.safetensors")
    text = (folder / "whole.json").read_text()
    card = json.loads(text)
    assert card["sha256"] == checksum
    assert card["network"] == "diffeomorphic"
    assert card["arguments"]["spacings"] == list(network.spacings)
    assert card["data"] == [
        {"name": "Bodies", "doi": "doi:10.1000/bodies", "license": "CC0", "images": 3}
    ]
    assert card["images"] == {"trained_on": 1, "held_out": 2}
    assert card["recipe"]["steps"] == [4, 2, 0]
    assert {"objective", "augmentation"} <= set(card["recipe"])
    for stage in card["stages"]:
        assert stage["held_out_cost_end"] <= stage["held_out_cost_start"]
    assert card["hardware"]["threads"] == 1
    assert card["software"]["torch"] and card["hours"] > 0
    assert str(folder) not in text and str(Path.home()) not in text


def test_curves_have_one_row_per_record(folder):
    rows = curves(folder / "whole_curves.tsv")
    assert [(row["stage"], row["spacing"], row["step"]) for row in rows] == [
        *(("1", "4", str(n)) for n in range(5)), *(("2", "2", str(n)) for n in range(3)),
        ("3", "1", "0"),
    ]  # fmt: skip
    assert [row["cost"] == "n/a" for row in rows] == [row["step"] == "0" for row in rows]
    assert (folder / "whole_curves.png").read_bytes().startswith(b"\x89PNG")


def test_progress_is_printed(folder):
    printed = (folder / "printed.txt").read_text()
    assert printed.startswith("4 images, 0 of them aligned by a previous run\n")
    assert "sub-04_T1w.nii.gz is left out: " in printed
    assert "cannot be read as a NIfTI image" in printed
    assert "Stage 1 of 3 (4 mm): update 4 of 4, cost " in printed
    assert all(line.count("Stage") <= 1 for line in printed.splitlines())


def test_rerun_of_a_finished_training_does_nothing(folder, capsys):
    names = ("whole.safetensors", "whole.json", "whole_curves.tsv", "whole_curves.png")
    before = [(folder / name).stat().st_mtime_ns for name in names]
    assert main(words(folder, "whole.safetensors")) == 0
    assert capsys.readouterr().out.endswith("already been trained with these settings.\n")
    assert [(folder / name).stat().st_mtime_ns for name in names] == before


def test_training_resumes_to_the_same_weights_after_interrupt_and_sigkill(folder):
    shutil.copytree(folder / ".whole-work" / "aligned", folder / ".again-work" / "aligned")
    table, model = folder / "again_curves.tsv", folder / "again.safetensors"
    for number in (signal.SIGINT, signal.SIGKILL):
        begun = len(curves(table))
        process = start(words(folder, model.name))
        while len(curves(table)) < begun + 2:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(number)
        printed, complaint = process.communicate(timeout=60)
        assert printed.startswith("4 images, 3 of them aligned")
        assert not model.exists(), (number, printed, complaint)
        if number == signal.SIGINT:
            assert process.returncode == 130
            assert complaint.startswith(
                "fcnreg: interrupted by the user. Run the same command again to resume fr"
            )
            assert complaint.count("\n") == 1
    process = start(words(folder, model.name))
    printed, complaint = process.communicate(timeout=300)
    assert process.returncode == 0, complaint
    assert f"Resuming from {folder / '.again-work' / 'checkpoint.pt'}" in printed
    assert "update 1 of 4" not in printed
    assert model.read_bytes() == (folder / "whole.safetensors").read_bytes()
    for one, other in zip(curves(table), curves(folder / "whole_curves.tsv"), strict=True):
        assert one | {"seconds": ""} == other | {"seconds": ""}


def test_training_resumes_to_the_same_weights_after_sigkill_at_any_time(folder):
    """How often is said by BIDS_FCNREG_KILLS, as in the tests of the app."""
    chance = random.Random(2)
    place = folder / "kills"
    place.mkdir()
    model, kills = place / "killed.safetensors", 0
    while kills < int(os.environ.get("BIDS_FCNREG_KILLS", "1")):
        process = start(words(folder, "kills/killed.safetensors"))
        try:
            process.communicate(timeout=chance.uniform(1.0, 5.0))
        except subprocess.TimeoutExpired:
            process.send_signal(chance.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT)))
            process.communicate(timeout=60)
            kills += 1
        else:  # it was faster: once more from the beginning
            assert process.returncode == 0
            assert model.read_bytes() == (folder / "whole.safetensors").read_bytes()
            shutil.rmtree(place)
            place.mkdir()
        for path in place.rglob("*.pt"):
            if not path.name.startswith("."):
                torch.load(path, weights_only=True)
    time.sleep(2.5)  # what is younger may be another run's
    process = start(words(folder, "kills/killed.safetensors"))
    _, complaint = process.communicate(timeout=300)
    assert process.returncode == 0, complaint
    assert model.read_bytes() == (folder / "whole.safetensors").read_bytes()
    left = {path.name for path in place.rglob(".*")}
    assert left == {".killed-work"}


def test_damaged_aligned_image_is_recomputed(folder, tmp_path):
    aligned = tmp_path / ".again-work" / "aligned"
    shutil.copytree(folder / ".whole-work" / "aligned", aligned)
    first, second, third, *_ = sorted(aligned.glob("*.pt"))
    good = torch.load(first, weights_only=True)
    first.write_bytes(first.read_bytes()[: first.stat().st_size // 2])
    flipped = bytearray(second.read_bytes())
    flipped[len(flipped) // 2] ^= 1  # an intensity that could be one
    second.write_bytes(flipped)
    third.write_bytes(b"")
    given = words(folder, "whole.safetensors")
    given[given.index(str(folder / "whole.safetensors"))] = str(tmp_path / "again.safetensors")
    assert main(given) == 0
    assert torch.equal(torch.load(first, weights_only=True), good)
    model = tmp_path / "again.safetensors"
    assert model.read_bytes() == (folder / "whole.safetensors").read_bytes()


def test_damaged_model_is_rewritten(folder, tmp_path):
    shutil.copytree(folder / ".whole-work", tmp_path / ".again-work")
    whole = (folder / "whole.safetensors").read_bytes()
    shutil.copy(folder / "whole.json", tmp_path / "again.json")
    model = tmp_path / "again.safetensors"
    model.write_bytes(whole[:-400] + bytes(400))
    given = words(folder, "whole.safetensors")
    given[given.index(str(folder / "whole.safetensors"))] = str(model)
    assert main(given) == 0
    assert model.read_bytes() == whole


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("settings.json", "is missing or damaged"), ("checkpoint.pt", "is damaged. Delete")],
)
def test_damaged_checkpoint_is_reported(folder, tmp_path, capsys, name, sentence):
    shutil.copytree(folder / ".whole-work", tmp_path / ".again-work")
    damaged = tmp_path / ".again-work" / name
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 0xFF
    damaged.write_bytes(content)
    given = words(folder, "whole.safetensors")
    given[given.index(str(folder / "whole.safetensors"))] = str(tmp_path / "again.safetensors")
    assert main(given) == 2
    error = capsys.readouterr().err
    assert f"{damaged} {sentence}" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ("--steps 4 3 0", "(steps)"),
        ("--random-seed 1 --learning-rate 0.1", "(learning rate, random seed)"),
        ("--network 2017 --steps 9", "(network, "),
    ],
)
def test_resuming_with_other_settings_is_refused(folder, capsys, more, named):
    assert main(words(folder, "whole.safetensors", *more.split())) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert (
        f"The training in {folder / '.whole-work'} was started with other settings {named}"[
            : -len(named) or None
        ]
        in error
    )
    assert named in error


def test_resuming_with_other_images_is_refused(folder, tmp_path, capsys):
    given = words(folder, "whole.safetensors")
    assert main([given[0], *given[2:]]) == 2
    assert "other settings (images)" in capsys.readouterr().err


def test_existing_weights_are_not_overwritten(folder, tmp_path, capsys):
    model = tmp_path / "mine.safetensors"
    shutil.copy(folder / "whole.safetensors", model)
    assert main(words(folder, "x.safetensors", "-o", model)) == 2
    assert f"{model} already exists" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [model]


def test_training_starts_from_given_weights(folder, capsys):
    """A short training of the second stage alone, from trained weights."""
    shutil.copytree(folder / ".whole-work" / "aligned", folder / "work" / "aligned")
    more = ["--start-from", folder / "whole.safetensors", "-w", folder / "work"]
    more += ["--steps", 0, 1, 0]
    assert main(words(folder, "more.safetensors", *more)) == 0, capsys.readouterr().err
    card = json.loads((folder / "more.json").read_text())
    whole = json.loads((folder / "whole.json").read_text())
    assert card["started_from"] == whole["sha256"]
    assert [stage["updates"] for stage in card["stages"]] == [0, 1, 0]
    assert card["stages"][1]["held_out_cost_start"] == pytest.approx(
        whole["stages"][1]["held_out_cost_end"], abs=1e-5
    )


def test_the_network_of_2017_without_held_out_images(folder, capsys):
    shutil.copytree(folder / ".whole-work" / "aligned", folder / ".old-work" / "aligned")
    more = ["--network", "2017", "--steps", "2", "--held-out", "0"]
    assert main(words(folder, "old.safetensors", *more)) == 0
    assert "No images are held out" in capsys.readouterr().out
    card = json.loads((folder / "old.json").read_text())
    assert card["network"] == "2017"
    assert card["stages"][0]["held_out_cost_end"] is None
    assert card["images"] == {"trained_on": 3, "held_out": 0}


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ("-o model.pt", "The output model.pt must end in .safetensors."),
        ("--steps 5", "this network is trained in 3 stages. Provide one number per stage"),
        ("--steps 0 0 0", "not all zero"),
        ("--held-out 1", "--held-out 1 is too few for a pair"),
        ("--held-out 5", "none is left to train on"),
        ("--start-from none.safetensors", "none.safetensors does not exist"),
        ("--device tpu", "--device must be one of"),
        ("--template none.nii.gz", "none.nii.gz does not exist"),
        ("--start-from MODEL --network 2017", "holds weights of the network diffeomorphic"),
    ],
)
def test_invalid_arguments_get_one_message_and_exit_code_2(folder, capsys, more, sentence):
    more = [str(folder / "whole.safetensors") if w == "MODEL" else w for w in more.split()]
    assert main(words(folder, "new.safetensors", *more)) == 2
    error = capsys.readouterr().err
    assert error.startswith("fcnreg: error: ") and error.count("\n") == 1
    assert sentence in error
    assert not (folder / ".new-work").exists()


@pytest.mark.parametrize("more", ["--steps -1 2", "--learning-rate 0", "--nthreads 0", "--fast"])
def test_invalid_numbers_get_one_line_and_exit_code_2(folder, capsys, more):
    with pytest.raises(SystemExit) as stop:
        main(words(folder, "new.safetensors", *more.split()))
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_too_few_images_and_whole_heads_are_refused(folder, tmp_path, capsys):
    data = [str(path) for path in sorted((folder / "dataset").glob("sub-*/anat/*.nii.gz"))]
    output = ["-o", str(tmp_path / "new.safetensors"), "--template", f"{folder}/template.nii.gz"]
    assert main(["train", *data[:2], *output]) == 2
    assert "2 images are too few. Provide at least 3" in capsys.readouterr().err
    # Cut open: a body that fills the volume, not all of it equally bright.
    head = brain(size=2.5)
    shades = head.get_fdata() * np.linspace(0.8, 1.2, SHAPE[0])[:, None, None]
    nib.Nifti1Image(shades.astype("float32"), head.affine).to_filename(tmp_path / "head.nii.gz")
    assert main(["train", *data, str(tmp_path / "head.nii.gz"), *output]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'head.nii.gz'} of 5 images" in error and error.count("\n") == 1
    assert "bids_fcnreg BIDS_DIR OUTPUT_DIR participant" in error
    unreadable = [data[-1]] * 2
    for n, path in enumerate(unreadable):
        shutil.copy(path, tmp_path / f"{n}.nii.gz")
    shutil.copytree(folder / ".whole-work" / "aligned", tmp_path / ".new-work" / "aligned",
                    dirs_exist_ok=True)  # fmt: skip
    broken = [str(tmp_path / "0.nii.gz"), str(tmp_path / "1.nii.gz")]
    assert main(["train", *data[:2], *broken, *output]) == 2
    assert "Only 2 of 4 images could be aligned" in capsys.readouterr().err


def test_participants_are_held_out_with_all_their_images():
    brains = [Brain(Path(f"/d/sub-{p}/anat/{n}.nii")) for p in "abcdefgh" for n in range(3)]
    for seed in range(5):
        trained, held = split_held_out(brains, None, seed)
        assert sorted(trained + held) == list(range(24))
        assert 2 <= len(held) <= 4
        assert not {brains[n].person for n in trained} & {brains[n].person for n in held}
        assert (trained, held) == split_held_out(brains, None, seed)
    assert len({tuple(split_held_out(brains, None, seed)[1]) for seed in range(5)}) > 1
    assert split_held_out(brains[:5], None, 0)[1] == []
    assert len(split_held_out(brains, 6, 0)[1]) == 6
    with pytest.raises(InputError, match="none is left"):
        split_held_out(brains[:9], 7, 0)


def test_a_network_on_disk_is_the_one_that_was_written(folder, tmp_path):
    network, checksum = load(folder / "whole.safetensors")
    save(network, tmp_path / "copy.safetensors")
    assert load(tmp_path / "copy.safetensors")[1] == checksum


def test_two_processes_train_like_one_with_the_same_batch(folder):
    """Both align, share the pairs of each update, and end with one model."""
    given = words(folder, "one.safetensors", "--batch", "2")
    assert main(given) == 0
    given[given.index(str(folder / "one.safetensors"))] = str(folder / "two.safetensors")
    group = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*group, "-m", "bids_fcnreg.cli.fcnreg", *given],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Trained weights: ") == 1
    one, two = (curves(folder / f"{name}_curves.tsv") for name in ("one", "two"))
    assert len(one) == len(two) > 5
    for left, right in zip(one, two, strict=True):
        for column in ("cost", "held_out"):
            if left[column] != "n/a":
                assert float(right[column]) == pytest.approx(float(left[column]), abs=1e-4)
    weights = [load(folder / f"{name}.safetensors")[0].state_dict() for name in ("one", "two")]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, atol=1e-3, rtol=0)


def test_a_batch_that_processes_cannot_share_is_refused(folder):
    group = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    given = words(folder, "odd.safetensors", "--batch", "3")
    done = subprocess.run(
        [*group, "-m", "bids_fcnreg.cli.fcnreg", *given], capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "2 processes cannot share 3 pairs evenly" in done.stderr
    assert not (folder / "odd.safetensors").exists()
