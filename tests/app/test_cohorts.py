"""`--template NAME:cohort-auto`: cohorts are chosen and reported before the run."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from rich.console import Console

from bids_fcnreg.app.cohorts import CohortChoice, choose_cohorts
from bids_fcnreg.app.preflight import find_templates
from bids_fcnreg.bids.scan import Scan
from bids_fcnreg.bids.templates import resolve_template, templates_of
from bids_fcnreg.config import Config
from bids_fcnreg.errors import InputError
from tests.app.bodies import QUICK, body, write_study

#: Ages in months of the cohorts of the template of these tests.
RANGES = {"1": (0, 6), "2": (6, 24), "3": (24, 60)}


def write_template(home: Path, image: nib.Nifti1Image, name: str = "Babies") -> Path:
    """Write a template with cohorts, laid out as in TemplateFlow."""
    folder = home / f"tpl-{name}"
    for cohort in RANGES:
        path = folder / f"cohort-{cohort}" / f"tpl-{name}_cohort-{cohort}_res-1_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        image.to_filename(path)
        mask = nib.Nifti1Image((image.get_fdata() > 0).astype("uint8"), image.affine)
        mask.to_filename(str(path).replace("T1w", "desc-brain_mask"))
    cohorts = {label: {"age": ages, "units": "months"} for label, ages in RANGES.items()}
    content = {"Identifier": name, "cohort": cohorts}
    (folder / "template_description.json").write_text(json.dumps(content))
    return folder


class Study:
    """A dataset of scans without content, with ages in years."""

    def __init__(self, root: Path) -> None:
        self.root = root
        image = np.where(np.indices((8, 8, 8)).sum(axis=0) > 10, 100, 0).astype("float32")
        self.template = write_template(root / "flow", nib.Nifti1Image(image, np.eye(4)))
        self.bids = root / "bids"
        self.bids.mkdir()

    def ages(self, table: dict[str, str], sessions: dict[str, dict[str, str]] | None = None):
        """Write participants.tsv and the sessions.tsv of participants."""
        lines = ["participant_id\tage", *(f"sub-{one}\t{age}" for one, age in table.items())]
        (self.bids / "participants.tsv").write_text("\n".join(lines) + "\n")
        for label, theirs in (sessions or {}).items():
            folder = self.bids / f"sub-{label}"
            folder.mkdir(exist_ok=True)
            lines = ["session_id\tage", *(f"ses-{one}\t{age}" for one, age in theirs.items())]
            (folder / f"sub-{label}_sessions.tsv").write_text("\n".join(lines) + "\n")

    def config(self, **settings) -> Config:
        paths = {"bids_dir": self.bids, "output_dir": self.root / "out"}
        return Config(**paths, analysis_level="participant", **settings)

    def choose(
        self, *labels: str, templates: tuple[str, ...] = ("Babies:cohort-auto",), **settings
    ) -> tuple[CohortChoice, str]:
        """Choose cohorts of scans such as "01" or "01/1"; return also what is printed."""
        config = self.config(templates=templates, **settings)
        parts = (label.partition("/") for label in labels)
        scans = [Scan(person, session or None, (Path("x"),)) for person, _, session in parts]
        text = io.StringIO()
        choice = choose_cohorts(config, scans, Console(file=text, width=1000))
        return choice, text.getvalue()


@pytest.fixture
def study(tmp_path, monkeypatch) -> Study:
    made = Study(tmp_path)
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "flow"))
    return made


def test_cohorts_of_participants_and_sessions(study):
    study.ages({"01": "0.25", "02": "3.5", "03": "n/a"}, {"03": {"1": "0.3", "2": "2.5"}})
    choice, text = study.choose("01", "02", "03/1", "03/2")
    assert choice.scans == {
        "Babies:cohort-1": {"sub-01", "sub-03_ses-1"},
        "Babies:cohort-3": {"sub-02", "sub-03_ses-2"},
    }
    assert not choice.failures
    assert text.splitlines() == [
        "Babies:cohort-1 (0 to 6 months): sub-01 (0.25 years), sub-03_ses-1 (0.3 years)",
        "Babies:cohort-3 (24 to 60 months): sub-02 (3.5 years), sub-03_ses-2 (2.5 years)",
    ]
    templates, _ = find_templates(study.config(), choice)
    assert [one.space for one in templates] == ["Babies+1", "Babies+3"]
    assert [one.space for one in templates_of(Scan("02", None, ()), templates)] == ["Babies+3"]
    assert {one.title for one in templates} == {
        "the cohort of Babies for the age of the participant"
    }


def test_scans_without_cohort_are_reported_and_do_not_stop_the_others(study):
    study.ages({"01": "0.25", "02": "n/a", "03": "n/a", "04": "89+"})
    choice, text = study.choose("01", "02", "03", "04")
    assert list(choice.failures) == ["sub-02", "sub-03", "sub-04"]
    advice = "name a cohort, such as Babies:cohort-1."
    assert all(one.message.endswith(advice) for one in choice.failures.values())
    assert (
        f"warning: sub-02, sub-03: {study.bids}/participants.tsv has no age in a column age. "
        in text
    )
    assert "sub-04: The age in" in text
    assert "89+ years, is outside the cohorts of Babies (0 to 60 months)" in text


def test_why_an_age_is_missing(study):
    with pytest.raises(InputError, match=r"sub-01: .*/participants.tsv does not exist. Enter"):
        study.choose("01")
    rows = "sub-01\t0.5\nsub-01\t1\nsub-02\t1\n"
    (study.bids / "participants.tsv").write_text(f"participant_id\tage\n{rows}")
    _, text = study.choose("01", "02")
    assert f"sub-01: {study.bids}/participants.tsv has conflicting rows for sub-01. Enter" in text


@pytest.mark.parametrize("first", [True, False])
def test_scan_without_cohort_is_registered_to_the_other_templates(study, first):
    study.ages({"01": "0.25", "02": "n/a"})
    both = ("Babies:cohort-auto", "MNI152NLin2009aSym")
    choice, text = study.choose("01", "02", templates=both if first else both[::-1])
    assert not choice.failures
    assert list(choice.incomplete) == ["sub-02"]
    message = choice.incomplete["sub-02"].message
    assert message.startswith(f"Not registered to Babies:cohort-auto: {study.bids}/participants")
    assert message in text
    templates, _ = find_templates(study.config(), choice)
    spaces = {
        label: {one.space for one in templates_of(Scan(label, None, ()), templates)}
        for label in ("01", "02")
    }
    assert spaces == {
        "01": {"Babies+1", "MNI152NLin2009aSym"}, "02": {"MNI152NLin2009aSym"}
    }  # fmt: skip


def test_scan_without_cohort_of_one_of_two_templates_is_registered_to_the_other(study):
    folder = study.root / "flow/tpl-Infants"
    for path in (study.root / "flow/tpl-Babies").rglob("*"):
        if path.is_file():
            name = str(path.relative_to(study.root / "flow")).replace("Babies", "Infants")
            (study.root / "flow" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, study.root / "flow" / name)
    described = json.loads((folder / "template_description.json").read_text())
    del described["cohort"]["3"]
    (folder / "template_description.json").write_text(json.dumps(described))
    study.ages({"01": "0.25", "02": "3.5", "03": "n/a"})
    both = ("Babies:cohort-auto", "Infants:cohort-auto")
    choice, _ = study.choose("01", "02", "03", templates=both)
    assert list(choice.incomplete) == ["sub-02"]
    assert "outside the cohorts of Infants" in choice.incomplete["sub-02"].message
    assert list(choice.failures) == ["sub-03"]


def test_longitudinal_registers_all_sessions_to_the_same_templates(study):
    study.ages({}, {"01": {"1": "0.25", "2": "n/a"}, "02": {"1": "2.5", "2": "3.5"}})
    settings = {"subject_anatomical_reference": "unbiased"}
    both = ("Babies:cohort-auto", "MNI152NLin2009aSym")
    choice, _ = study.choose("01/1", "01/2", "02/1", "02/2", templates=both, **settings)
    assert choice.scans == {"Babies:cohort-3": {"sub-02_ses-1", "sub-02_ses-2"}}
    assert not choice.failures and list(choice.incomplete) == ["sub-01_ses-2", "sub-01_ses-1"]
    assert "sub-01_ses-2 has no cohort" in choice.incomplete["sub-01_ses-1"].message
    # A session that is not registered at all does not affect the others.
    choice, _ = study.choose("01/1", "01/2", "02/1", "02/2", **settings)
    assert list(choice.failures) == ["sub-01_ses-2"] and not choice.incomplete


def test_no_cohort_for_any_scan_is_an_error(study):
    study.ages({"01": "n/a"})
    with pytest.raises(InputError, match=r"sub-01: .*participants.tsv has no age"):
        study.choose("01")


def test_doubtful_ages_are_reported(study):
    study.ages(
        {"01": "0", "02": "1.5", "03": "3", "04": "2", "05": "0.25"},
        {"05": {"1": "0.25", "3": "4"}},
    )
    _, text = study.choose("01", "02/1", "02/2", "03", "04", "05/1", "05/2", "05/3")
    assert "warning: sub-01, sub-04: ages that are rounded down to this one" in text
    # Also the age of one session that sessions.tsv lacks.
    assert "warning: sub-02_ses-1, sub-02_ses-2, sub-05_ses-2: the age is that in" in text
    assert "sub-03" not in text.partition("warning")[2]


def test_results_in_another_cohort_are_reported(study):
    study.ages({"01": "3.5"})
    anat = study.root / "out/sub-01/anat"
    anat.mkdir(parents=True)
    for space in ("Babies+1", "Babies+3", "Baby+1"):
        name = f"sub-01_from-T1w_to-{space}_mode-image_desc-quality_xfm.json"
        quality = {"mode": "predict", "verdict": "good", "verdict_reason": None, "seconds": {}}
        (anat / name).write_text(json.dumps(quality))
    _, text = study.choose("01")
    assert "results of earlier runs in another cohort: sub-01 (Babies+1). Delete" in text


def test_longitudinal_refuses_sessions_in_different_cohorts(study):
    study.ages({}, {"01": {"1": "0.25", "2": "3.5"}, "02": {"1": "2.5", "2": "3.5"}})
    choice, _ = study.choose(
        "01/1", "01/2", "02/1", "02/2", subject_anatomical_reference="unbiased"
    )
    assert choice.scans == {"Babies:cohort-3": {"sub-02_ses-1", "sub-02_ses-2"}}
    for label in ("sub-01_ses-1", "sub-01_ses-2"):
        assert "sub-01 are in different cohorts of Babies (1, 3)" in choice.failures[label].message


def test_modifiers_and_directories_are_kept(study):
    study.ages({"01": "0.25"})
    directory = f"{study.template}:cohort-auto:res-1"
    choice, _ = study.choose("01", templates=(directory, "MNI152NLin2009aSym"))
    assert choice.specs == [f"{study.template}:cohort-1:res-1", "MNI152NLin2009aSym"]
    templates, _ = find_templates(study.config(), choice)
    other = Scan("02", None, ())
    assert [one.space for one in templates_of(other, templates)] == ["MNI152NLin2009aSym"]


@pytest.mark.parametrize("number", ["1", "01"])
@pytest.mark.parametrize("first", [True, False])
def test_a_cohort_that_is_also_named_is_for_all_scans(study, number, first):
    study.ages({"01": "0.25", "02": "3.5"})
    both = (f"Babies:cohort-{number}", "Babies:cohort-auto")
    choice, _ = study.choose("01", "02", templates=both if first else both[::-1])
    templates, _ = find_templates(study.config(), choice)
    spaces = [
        {one.space for one in templates_of(Scan(label, None, ()), templates)}
        for label in ("01", "02")
    ]
    assert spaces == [{"Babies+1"}, {"Babies+1", "Babies+3"}]


def test_without_cohort_auto_no_table_is_read(study):
    (study.bids / "participants.tsv").write_text("age\n")
    choice, text = study.choose("01", templates=("Babies:cohort-1",))
    assert choice == CohortChoice(["Babies:cohort-1"]) and not text


def test_only_the_participant_level_chooses(study):
    with pytest.raises(InputError, match=r"participant level only. Choose from Babies:cohort-1, "):
        resolve_template("Babies:cohort-auto")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> SimpleNamespace:
    """Two participants of different cohorts, and a third without age."""
    folder = tmp_path_factory.mktemp("cohorts")
    scans = {f"sub-0{n}": body(4.5, 1 + 0.04 * n, seed=n) for n in (1, 2, 3)}
    study = write_study(folder, "Babies", 4.5, scans)
    study.template = write_template(folder, body(4.5))
    table = "participant_id\tage\nsub-01\t4\nsub-02\t30\nsub-03\tn/a\n"
    (study.bids / "participants.tsv").write_text(table)
    sidecar = {"age": {"Description": "Age at the scan", "Units": "month"}}
    (study.bids / "participants.json").write_text(json.dumps(sidecar))
    study.done = call(study, "participant")
    return study


def call(study: SimpleNamespace, level: str, *words: str) -> subprocess.CompletedProcess[str]:
    given = [study.bids, study.out, level, "-w", study.folder / "work", *QUICK]
    given += ["--template", f"{study.template}:cohort-auto", *words]
    command = [sys.executable, "-m", "bids_fcnreg", *map(str, given)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
def test_each_participant_is_registered_to_its_cohort(run):
    assert run.done.returncode == 1, run.done.stdout + run.done.stderr
    spaces = {
        path.name.split("_to-")[1].split("_")[0]: path.parts[-3]
        for path in run.out.glob("sub-*/anat/*_from-T1w_to-*_xfm.h5")
    }
    assert spaces == {"Babies+1": "sub-01", "Babies+3": "sub-02"}
    assert "sub-03 failed: " in run.done.stdout
    assert "2 of 3 done" in run.done.stdout
    methods = (run.out / "logs/CITATION.md").read_text()
    assert methods.count("the cohort of Babies for the age of the participant") == 1


@pytest.mark.slow
def test_participant_without_age_is_registered_to_the_plain_template(run, tmp_path):
    body(4.5).to_filename(tmp_path / "plain.nii.gz")
    words = ["--template", tmp_path / "plain.nii.gz", "--participant-label", "03"]
    study = SimpleNamespace(**{**vars(run), "out": tmp_path / "out", "folder": tmp_path})
    done = call(study, "participant", *words, "--level", "minimal")
    assert done.returncode == 1, done.stdout + done.stderr
    assert list(study.out.glob("sub-03/anat/*_from-T1w_to-plain_mode-image_xfm.h5"))
    assert "sub-03: Not registered to " in done.stdout and "1 of 1 done" in done.stdout
    assert "Not registered to " in (study.out / "sub-03.html").read_text()


@pytest.mark.slow
def test_dry_run_lists_the_cohort_of_each(run):
    done = call(run, "participant", "--dry-run", "--mode", "refine")
    assert "sub-01: results in Babies+1 exist (predict)" in done.stdout
    assert "sub-02: results in Babies+3 exist (predict)" in done.stdout
    assert "sub-01: results in Babies+3" not in done.stdout


@pytest.mark.slow
def test_group_report_has_a_table_per_cohort(run):
    done = call(run, "group")
    assert done.returncode == 0, done.stdout + done.stderr
    for cohort, label in (("1", "sub-01"), ("3", "sub-02")):
        table = (run.out / f"group/space-Babies+{cohort}_quality.tsv").read_text()
        assert [line.split("\t")[0] for line in table.splitlines()[1:]] == [label, "sub-03"]
        assert f"Babies+{cohort}: 1 of 2 scans" in done.stdout


@pytest.mark.slow
def test_study_template_and_training_refuse_automatic_cohorts(run):
    for words in (["template", "--template-name", "New"], ["train"]):
        done = call(run, "group", "--group-task", *words)
        assert done.returncode == 2
        assert "available at the participant level only" in done.stderr
