"""The report assembled from figures in the derivatives."""

from __future__ import annotations

from pathlib import Path

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
