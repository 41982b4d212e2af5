"""Words become settings, and wrong words one sentence."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bids_fcnreg import __version__
from bids_fcnreg.cli.options import parse_arguments
from bids_fcnreg.config import Config
from bids_fcnreg.config_file import write_settings
from bids_fcnreg.errors import InputError


@pytest.fixture
def words(tmp_path) -> list[str]:
    """The three words that are always needed."""
    (tmp_path / "in").mkdir()
    return [str(tmp_path / "in"), str(tmp_path / "out"), "participant"]


def test_no_option_means_the_defaults(words, tmp_path):
    assert parse_arguments(words) == Config(bids_dir=tmp_path / "in", output_dir=tmp_path / "out")


def test_every_option_arrives(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("f.json", "p.yaml", "t.nii.gz", "b.nii.gz"):
        (tmp_path / name).touch()
    options = (
        "--participant-label sub-01 02 --session-label ses-a b --bids-filter-file f.json "
        "--bids-database-dir db --skip-bids-validation --template MNIPediatricAsym:cohort-3:res-1 "
        "--template t.nii.gz --atlas A --atlas b.nii.gz --mode optimize "
        "--device cuda:1 --skull-strip-t1w force --random-seed 5 -w scratch --nprocs 6 "
        "--omp-nthreads 3 --mem 7.5 --low-mem --use-plugin p.yaml --resource-monitor "
        "--stop-on-first-crash --clean-workdir --write-graph --reports-only -vv"
    )
    assert parse_arguments([*words, *options.split()]) == Config(
        bids_dir=tmp_path / "in",
        output_dir=tmp_path / "out",
        participants=("01", "02"),
        sessions=("a", "b"),
        filter_file=tmp_path / "f.json",
        database_dir=tmp_path / "db",
        skip_validation=True,
        templates=("MNIPediatricAsym:cohort-3:res-1", "t.nii.gz"),
        atlases=("A", "b.nii.gz"),
        mode="optimize",
        device="cuda:1",
        skull_strip="force",
        seed=5,
        work_dir=tmp_path / "scratch",
        nprocs=6,
        omp_nthreads=3,
        mem_gb=7.5,
        low_mem=True,
        plugin_file=tmp_path / "p.yaml",
        resource_monitor=True,
        stop_on_first_crash=True,
        clean_workdir=True,
        write_graph=True,
        reports_only=True,
        verbose=2,
    )


def test_words_win_over_the_config_file_and_that_over_defaults(words, tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("mode = 'predict'\nseed = 9\noutput_dir = '/elsewhere'\nlow_mem = true\n")
    config = parse_arguments([*words, "--config-file", str(path), "--mode", "refine"])
    assert (config.mode, config.seed, config.low_mem) == ("refine", 9, True)
    assert config.output_dir == tmp_path / "out"


def test_a_saved_run_can_be_repeated(words, tmp_path):
    config = parse_arguments([*words, "--mode", "optimize", "--nprocs", "3", "--mem", "2"])
    path = write_settings(config, tmp_path / "config.toml")
    assert parse_arguments([*words, "--config-file", str(path)]) == config


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--model", "none.safetensors"], "none.safetensors does not exist"),
        (["--use-plugin", "no.yaml"], "--use-plugin: "),
        (["--nipype_plugin_file", "no.yaml"], "--nipype-plugin-file: "),
        (["--output-spaces", "t.nii"], "--output-spaces: t.nii does not exist"),
        (["--bids-filter-file", "no.json"], "no.json does not exist"),
        (["--template", "t.nii"], "t.nii does not exist"),
        (["--atlas", "a.nii.gz:a.tsv"], "a.nii.gz does not exist"),
        (["--device", "tpu"], "--device must be one of auto, cpu, cuda, cuda:N, not 'tpu'"),
        (["--config-file", "no.toml"], "no.toml cannot be read"),
    ],
)
def test_a_value_that_does_not_fit(words, options, sentence):
    with pytest.raises(InputError) as caught:
        parse_arguments([*words, *options])
    assert sentence in str(caught.value)


def test_the_work_folder_may_not_lie_in_the_dataset(words):
    with pytest.raises(InputError, match="is inside the BIDS directory"):
        parse_arguments([*words, "-w", f"{words[0]}/work"])


@pytest.mark.parametrize(
    ("change", "words_of_sentence"),
    [
        (["--nprocs", "0"], ["--nprocs", "at least 1"]),
        (["--nprocs", "many"], ["--nprocs", "a whole number", "'many'"]),
        (["--mem", "-1"], ["--mem", "at least"]),
        (["--mode", "fast"], ["--mode", "refine", "predict", "optimize"]),
        (["--part", "01"], ["unrecognized arguments", "--part"]),
    ],
)
def test_wrong_words_end_with_one_sentence_and_2(words, change, words_of_sentence, capsys):
    with pytest.raises(SystemExit) as caught:
        parse_arguments([*words, *change])
    assert caught.value.code == 2
    sentence = capsys.readouterr().err
    assert sentence.startswith("bids_fcnreg: error: ")
    assert sentence.count("\n") == 1
    for word in words_of_sentence:
        assert word in sentence


def test_help_and_version_load_nothing_heavy():
    heavy = "{'torch', 'nipype', 'bids', 'numpy', 'nibabel', 'rich', 'SimpleITK'}"
    for module, option in [
        ("bids_fcnreg.cli.bids_app", "--help"),
        ("bids_fcnreg.cli.bids_app", "--version"),
        ("bids_fcnreg.cli.fcnreg", "--help"),
    ]:
        code = (
            f"import sys; from {module} import main\n"
            f"try: main([{option!r}])\n"
            f"except SystemExit as end: assert not end.code\n"
            f"sys.exit(str({heavy} & set(sys.modules)) if {heavy} & set(sys.modules) else 0)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        if option == "--version":
            assert done.stdout == f"bids_fcnreg {__version__}\n"


def test_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "bids_fcnreg", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.startswith("usage: bids_fcnreg ")
    for option in ("--participant-label", "--skull-strip-t1w", "--use-plugin", "--atlas"):
        assert option in done.stdout


@pytest.mark.parametrize("word", ["--dry-run", "--boilerplate-only", "--reports-only"])
def test_participant_options_are_refused_at_group_level(words, word):
    with pytest.raises(InputError, match=f"{word} is an option of the participant level"):
        parse_arguments([*words[:2], "group", word])


@pytest.mark.parametrize(
    ("module", "typed", "word"),
    [
        ("bids_fcnreg", "bids_fcnreg in out participant --fail", "--fail-on-qc"),
        ("bids_fcnreg.cli.fcnreg", "fcnreg reg", "register"),
    ],
)
def test_shell_completion(tmp_path, module, typed, word):
    pytest.importorskip("argcomplete")
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": typed, "COMP_POINT": str(len(typed))}
    answer = tmp_path / "answer"
    environment = os.environ | asked | {"_ARGCOMPLETE_STDOUT_FILENAME": str(answer)}
    subprocess.run([sys.executable, "-m", module], env=environment, cwd=tmp_path, check=True)
    assert answer.read_text().strip() == word


@pytest.mark.parametrize(
    ("extra", "advice"),
    [
        (["--partcipant-label", "05"], "did you mean --participant-label?"),
        (["--output-space", "T1w"], "did you mean --output-spaces?"),
        (["--zzz"], "See `bids_fcnreg --help`"),
    ],
)
def test_misspelled_option_gets_a_suggestion(words, extra, advice, capsys):
    with pytest.raises(SystemExit):
        parse_arguments([*words, *extra])
    assert advice in capsys.readouterr().err


def test_options_before_positional_arguments_get_a_hint(tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(["--participant-label", "05", str(tmp_path), "out", "participant"])
    assert "first, in this order" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("order", "advice"),
    [
        (["in", "participant"], "BIDS_DIR OUTPUT_DIR participant (or group) first"),
        (["in", "participant", "out"], "BIDS_DIR OUTPUT_DIR participant (or group) first"),
        (["in", "out", "participants"], "did you mean participant?"),
        (["in", "out", "--participant-label", "01", "participant"], "first, in this order"),
    ],
)
def test_missing_or_misplaced_arguments_get_a_hint(order, advice, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(order)
    assert advice in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--train-steps", "3"], "--train-steps is an option of the group level"),
        (["--template-name", "X"], "--template-name is an option of the group level"),
        (["-w", "file"], "is a file. Choose another one with -w"),
    ],
)
def test_option_checks_are_refused_at_participant_level(
    words, options, sentence, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=sentence):
        parse_arguments([*words, *options])
