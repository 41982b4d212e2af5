"""The report assembled from figures in the derivatives."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bids_fcnreg.app.reports import SPECIFICATION, make_reports
from bids_fcnreg.bids.scan import Scan
from bids_fcnreg.config import Config

#: What figures show, as in the names of their files.
FIGURES = {"brain", "flicker", "contours", "deformation"}


def test_report_separates_sessions_spaces_and_failures(tmp_path):
    figures = tmp_path / "sub-01/figures"
    figures.mkdir(parents=True)
    for session in ("a", "b"):
        summary = figures / f"sub-01_ses-{session}_desc-summary_T1w.html"
        summary.write_text(f"<p>summary of {session}</p>")
        for space in ("Here", "There+3"):
            name = f"sub-01_ses-{session}_space-{space}_desc-contours_T1w.png"
            (figures / name).write_bytes(b"")
    config = Config(bids_dir=tmp_path, output_dir=tmp_path)
    scans = [Scan("01", session, (Path("x"),)) for session in ("a", "b")]
    crash = tmp_path / "crash.txt"
    crash.write_text("Node: x\nValueError: <no> good")
    failures = {"sub-01_ses-b": "It <broke>.", "sub-02": "Other."}
    accounts = {"sub-01_ses-b": crash, "sub-02": tmp_path / "none.txt"}
    (report,) = make_reports(config, scans, failures, accounts)
    assert report == tmp_path / "sub-01.html"
    text = report.read_text()
    assert text.index("summary of a") < text.index("summary of b")
    assert text.count("_desc-contours_T1w.png</a>") == 4
    assert "It &lt;broke&gt;." in text and "Other." not in text
    assert "ValueError: &lt;no&gt; good" in text
    assert not list(tmp_path.glob(".sub*"))
    make_reports(config, scans)
    assert "broke" not in report.read_text()


@pytest.mark.parametrize("label", ["01", "A+B", "1+"])
@pytest.mark.parametrize("more", ["", "_ses-1", "_ses-1+x", "_acq-a+b", "_ses-1_acq-A_ce-g+1"])
@pytest.mark.parametrize(
    "directory",
    ["out", "sub-99/out", "anat", "func/x", "desc-x/sub-2_ses-3", "o ut [y]", "figures/{x}"],
)
def test_figures_are_found_whatever_labels_and_directories_are(tmp_path, label, more, directory):
    root = tmp_path / directory
    figures = root / f"sub-{label}/figures"
    figures.mkdir(parents=True)
    prefix = f"sub-{label}{more}"
    (figures / f"{prefix}_desc-summary_T1w.html").write_text("<p>the summary</p>")
    (figures / f"{prefix}_space-There+3_desc-verdict_xfm.html").write_text("<p>the verdict</p>")
    for name in ("space-There+3_desc-contours_T1w", "atlas-A_desc-There+3_dseg"):
        (figures / f"{prefix}_{name}.png").write_bytes(b"")
    config = Config(bids_dir=tmp_path, output_dir=root)
    session = more.split("_acq")[0].removeprefix("_ses-") or None
    (report,) = make_reports(config, [Scan(label, session, (Path("x"),))])
    text = report.read_text()
    assert "the summary" in text and "the verdict" in text
    assert text.count("contours_T1w.png</a>") == text.count("dseg.png</a>") == 1
    assert text.count("<code>There+3</code>") == 2


def test_methods_appear_only_with_results(tmp_path):
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "CITATION.html").write_text("<html><body><p>What was done.</p></body></html>")
    config = Config(bids_dir=tmp_path, output_dir=tmp_path)
    scan = Scan("01", None, (Path("x"),))
    (report,) = make_reports(config, [scan], {"sub-01": "It broke."})
    failed = report.read_text()
    assert "It broke." in failed and "What was done." not in failed
    assert failed.index("<h2") == failed.index('<h2 id="Errors"')
    figures = tmp_path / "sub-01/figures"
    (figures / "sub-01_space-Here_desc-verdict_xfm.html").write_text("<p>good</p>")
    make_reports(config, [scan])
    assert "What was done." in report.read_text()


def test_sessions_are_in_the_order_of_the_scans(tmp_path):
    figures = tmp_path / "sub-01" / "figures"
    figures.mkdir(parents=True)
    sessions = ["screening", "9", "10", "followup"]
    for session in [*sessions, "11"]:  # the last is of an earlier run
        summary = figures / f"sub-01_ses-{session}_desc-summary_T1w.html"
        summary.write_text(f"<p>summary of {session}</p>")
    scans = [Scan("01", session, (Path("x"),)) for session in sessions]
    config = Config(bids_dir=tmp_path, output_dir=tmp_path, work_dir=tmp_path)
    (report,) = make_reports(config, scans)
    text = report.read_text()
    places = [text.index(f"summary of {session}") for session in [*sessions, "11"]]
    assert places == sorted(places)


def test_every_figure_of_the_report_has_a_caption_that_is_text():
    sections = yaml.safe_load(SPECIFICATION.read_text())["sections"]
    figures = [part for section in sections for part in section["reportlets"] if "bids" in part]
    captions = [part["caption"] for part in figures if part["bids"].get("desc") in FIGURES]
    assert len(captions) == len(FIGURES) and all(isinstance(text, str) for text in captions)
