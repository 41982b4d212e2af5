"""Settings survive the way through a file, and a wrong file is refused with one sentence."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from bids_fcnreg.config import Config
from bids_fcnreg.config_file import read_settings, write_settings
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.modes import MODES


def full_config() -> Config:
    """A configuration in which every field differs from its default."""
    return Config(
        bids_dir=Path("/data/in"),
        output_dir=Path("/data/out"),
        analysis_level="group",
        group_task="template",
        template_name="Study",
        template_symmetric=True,
        template_anchored=True,
        template_warm_start=True,
        template_iterations=3,
        train_steps=("10", "5", "0"),
        train_from_scratch=True,
        participants=("01", "02"),
        sessions=("x",),
        filter_file=Path("/f.json"),
        database_dir=Path("/db"),
        skip_validation=True,
        templates=("MNIPediatricAsym:cohort-3", "/t.nii.gz"),
        atlases=("Schaefer2018",),
        mode="optimize",
        sloppy=True,
        network="2017",
        model=Path("/m.safetensors"),
        device="cuda:1",
        subject_anatomical_reference="unbiased",
        derivatives=("fmriprep=/data/fmriprep",),
        reference_session="a",
        reference_suffix="UNIT1",
        other_images="ignore",
        lesion_masks=("derivatives/*/sub-*/*_mask.nii.gz",),
        skull_strip="skip",
        skull_strip_method="synthstrip",
        processing_level="minimal",
        xfm_formats=("fsl", "x5"),
        seed=7,
        work_dir=Path("/scratch/w"),
        nprocs=3,
        omp_nthreads=5,
        mem_gb=2.5,
        low_mem=True,
        plugin_file=Path("/p.yaml"),
        resource_monitor=True,
        stop_on_first_crash=True,
        clean_workdir=True,
        write_graph=True,
        md_only_boilerplate=True,
        notrack=True,
        fail_on_qc=True,
        dry_run=True,
        boilerplate_only=True,
        reports_only=True,
        verbose=2,
    )


def reread(config: Config, path: Path) -> Config:
    return Config(**read_settings(write_settings(config, path)))


def test_every_setting_survives_saving_and_loading(tmp_path):
    config = full_config()
    default = Config(bids_dir=Path("/a"), output_dir=Path("/b"))
    for field in fields(Config):
        assert getattr(config, field.name) != getattr(default, field.name), field.name
    assert reread(config, tmp_path / "logs" / "config.toml") == config
    assert reread(default, tmp_path / "default.toml") == default
    assert sorted(p.name for p in tmp_path.iterdir()) == ["default.toml", "logs"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nproc = 2", ["unknown key 'nproc'", "nprocs"]),
        ("[execution]\nnprocs = 2", ["unknown key 'execution'"]),
        ("nprocs = '2'", ["'nprocs'", "a whole number", "'2'"]),
        ("nprocs = true", ["'nprocs'", "a whole number"]),
        ("nprocs = 0", ["'nprocs'", "at least 1"]),
        ("low_mem = 1", ["'low_mem'", "true or false"]),
        ("mem_gb = 'much'", ["'mem_gb'", "a number"]),
        ("participants = '01'", ["'participants'", "a list of strings"]),
        ("participants = [1, 2]", ["'participants'", "a list of strings"]),
        ("work_dir = ''", ["'work_dir'", "a path"]),
        ("mode = 'fast'", ["'mode'", *MODES, "'fast'"]),
        ("device = 'cuda:x'", ["'device'", "cuda:N"]),
        ("mode = ?\n", ["not valid TOML", "line 1"]),
    ],
)
def test_invalid_file_is_refused_with_its_name_and_the_key(tmp_path, line, words):
    path = tmp_path / "settings.toml"
    path.write_text(line)
    with pytest.raises(InputError) as caught:
        read_settings(path)
    sentence = str(caught.value)
    assert "\n" not in sentence
    for word in [str(path), *words]:
        assert word in sentence


def test_missing_or_binary_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.toml cannot be read: No such file"):
        read_settings(tmp_path / "nothing.toml")
    (tmp_path / "image.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not text in UTF-8"):
        read_settings(tmp_path / "image.toml")


def test_values_are_normalized(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "settings.toml"
    path.write_text("participants = ['sub-01', '01', '02']\nwork_dir = 'w'\nmem_gb = 4\n")
    settings = read_settings(path)
    assert settings == {"participants": ("01", "02"), "work_dir": tmp_path / "w", "mem_gb": 4.0}
