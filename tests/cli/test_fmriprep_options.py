"""Options as users of fMRIPrep type them, and files of arguments."""

from __future__ import annotations

import pytest

from bids_fcnreg.cli.options import parse_arguments
from bids_fcnreg.cli.output_spaces import select_templates
from bids_fcnreg.config import DEFAULT_TEMPLATE, Config
from bids_fcnreg.errors import InputError


@pytest.fixture
def needed(tmp_path, monkeypatch) -> list[str]:
    """The positional arguments; the current directory is empty but for the dataset."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    return ["in", "out", "participant"]


def refusal(arguments: list[str], capsys) -> str:
    """Return the message of arguments that argparse refuses."""
    with pytest.raises(SystemExit) as caught:
        parse_arguments(arguments)
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        ("--n_cpus 3", "nprocs", 3),
        ("--n-cpus=3", "nprocs", 3),
        ("--nthreads 3", "nprocs", 3),
        ("--omp_nthreads 2", "omp_nthreads", 2),
        ("--mem 8", "mem_gb", 8.0),
        ("--mem 8G", "mem_gb", 8.0),
        ("--mem 7.5GB", "mem_gb", 7.5),
        ("--mem 8000M", "mem_gb", 8.0),
        ("--mem 0.5t", "mem_gb", 500.0),
        ("--mem_mb 8000", "mem_gb", 8.0),
        ("--mem-mb 8000", "mem_gb", 8.0),
        ("--mem_mb=8GB", "mem_gb", 8.0),
        ("--participant_label sub-01 02", "participants", ("01", "02")),
        ("--session_label ses-a", "sessions", ("a",)),
        ("--skip_bids_validation", "skip_validation", True),
        ("--stop_on_first_crash", "stop_on_first_crash", True),
        ("--notrack", "notrack", True),
        ("--md-only-boilerplate", "md_only_boilerplate", True),
        ("--sloppy", "mode", "predict"),
        ("--sloppy --mode predict", "sloppy", True),
    ],
)
def test_spellings_of_fmriprep(needed, options, name, value, capsys):
    assert getattr(parse_arguments([*needed, *options.split()]), name) == pytest.approx(value)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("flag", ["--use-plugin", "--nipype-plugin-file", "--nipype_plugin_file"])
def test_plugin_file(needed, flag, tmp_path):
    (tmp_path / "p.yaml").touch()
    assert parse_arguments([*needed, flag, "p.yaml"]).plugin_file == tmp_path / "p.yaml"


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ("--mem much", "a unit such as 16G or 16000M, not 'much'"),
        ("--mem 8X", "a unit such as 16G or 16000M, not '8X'"),
        ("--mem 1.2.3", "a unit such as 16G or 16000M, not '1.2.3'"),
        ("--mem_mb 50", "at least 0.1 GB, not 50"),
    ],
)
def test_wrong_amount_of_memory(needed, options, part, capsys):
    assert part in refusal([*needed, *options.split()], capsys)


def test_memory_that_is_probably_in_mb_gives_a_warning(needed, capsys):
    assert parse_arguments([*needed, "--mem", "16000"]).mem_gb == 16000
    assert "For MB, type --mem-mb 16000" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "templates", "ignored"),
    [
        ("--output-spaces A:cohort-1:res-2 B", ("A:cohort-1:res-2", "B"), ()),
        ("--output_spaces A --template B", ("B", "A"), ()),
        ("--template A --output-spaces T1w", ("A",), ("T1w is ignored: results in native",)),
        (
            "--output-spaces anat A fsnative fsaverage:den-10k func",
            ("A",),
            (
                "anat is ignored: results in native space are always written",
                "fsnative, fsaverage:den-10k are ignored: surfaces are not processed",
                "func is ignored: functional images are not processed",
            ),
        ),
        ("--output-spaces A:res-native", ("A",), ("res-native is ignored",)),
        ("--template fsaverage", ("fsaverage",), ()),
    ],
)
def test_output_spaces_are_templates(needed, options, templates, ignored, capsys):
    assert parse_arguments([*needed, *options.split()]).templates == templates
    warning = capsys.readouterr().err
    assert warning.count("\n") == bool(ignored)
    for part in ignored:
        assert part in warning


def test_output_spaces_without_template_are_refused(needed, tmp_path, capsys):
    with pytest.raises(InputError, match=f"names no template.*native.*{DEFAULT_TEMPLATE}"):
        parse_arguments([*needed, "--output-spaces", "T1w"])
    (tmp_path / "c.toml").write_text("templates = ['A']\n")
    config = parse_arguments([*needed, "--output-spaces", "T1w", "--config-file", "c.toml"])
    assert config.templates == ("A",)
    assert "T1w is ignored" in capsys.readouterr().err


def test_names_of_templates_are_not_ignored():
    names = [DEFAULT_TEMPLATE, "MNIPediatricAsym:cohort-3:res-1", "dir/tpl-T1w", "T1w.nii.gz"]
    assert select_templates(names) == (names, "")


@pytest.mark.parametrize(
    ("in_file", "options", "mode"),
    [
        ("sloppy = true", [], "predict"),
        ("mode = 'optimize'", ["--sloppy"], "predict"),
        ("sloppy = true", ["--mode", "refine"], "refine"),
        ("sloppy = true", ["--mode", "predict"], "predict"),
    ],
)
def test_sloppy_and_mode_override_those_of_the_file(needed, in_file, options, mode, tmp_path):
    (tmp_path / "c.toml").write_text(f"{in_file}\n")
    config = parse_arguments([*needed, *options, "--config-file", "c.toml"])
    assert (config.mode, config.sloppy) == (mode, mode == "predict")


def test_sloppy_with_another_mode_is_refused(needed):
    with pytest.raises(InputError, match="--sloppy and --mode refine are mutually exclusive"):
        parse_arguments([*needed, "--sloppy", "--mode", "refine"])


def test_participants_from_a_file(needed, tmp_path):
    (tmp_path / "subjects.txt").write_bytes(b"\xef\xbb\xbfsub-01\r\n\r\n# pilot\r\n  02\r\n")
    for flag in ("--participant-label", "--participant_label"):
        config = parse_arguments([*needed, flag, "@subjects.txt", "03", "--sloppy"])
        assert config.participants == ("01", "02", "03")


def test_arguments_from_a_file(needed, tmp_path):
    text = "# site A\n--n_cpus=3\n--template\nmy image.nii.gz\n\n@more.txt\n"
    (tmp_path / "options.txt").write_text(text)
    (tmp_path / "more.txt").write_text("--mode\npredict")
    (tmp_path / "my image.nii.gz").touch()
    assert parse_arguments([*needed, "@options.txt", "--nprocs", "3"]) == Config(
        bids_dir=tmp_path / "in",
        output_dir=tmp_path / "out",
        work_dir=tmp_path / "work",
        nprocs=3,
        templates=("my image.nii.gz",),
        mode="predict",
    )


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (None, "No such file or directory: 'a.txt'"),
        ("--mode predict", "'--mode predict' is several arguments: write one per line"),
        ("@a.txt", "includes itself"),
        ("--mode\nfast", "invalid choice: 'fast'"),
    ],
)
def test_wrong_file_of_arguments(needed, content, part, tmp_path, capsys):
    if content is not None:
        (tmp_path / "a.txt").write_text(content)
    message = refusal([*needed, "@a.txt"], capsys)
    assert message.startswith("bids_fcnreg: error: ") and part in message
    assert "Errno" not in message


@pytest.mark.parametrize(
    ("options", "value", "longitudinal"),
    [
        ("", "sessionwise", False),
        ("--subject-anatomical-reference first-lex", "first-lex", False),
        ("--subject_anatomical_reference unbiased", "unbiased", True),
        ("--longitudinal", "unbiased", True),
    ],
)
def test_anatomical_reference(needed, options, value, longitudinal):
    config = parse_arguments([*needed, *options.split()])
    assert config.subject_anatomical_reference == value
    assert config.longitudinal == longitudinal


def test_anatomical_reference_and_its_alias_exclude_each_other(needed, capsys):
    options = ["--longitudinal", "--subject-anatomical-reference", "first-lex"]
    assert "not allowed with argument" in refusal([*needed, *options], capsys)
