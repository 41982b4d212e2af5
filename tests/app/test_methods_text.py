"""The text for the methods section, in any directory."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from bids_fcnreg.app.methods_text import write_methods
from bids_fcnreg.config import Config


def write(root, text: str) -> str:
    """Write the text in a directory, and return it formatted."""
    config = Config(bids_dir=root, output_dir=root, analysis_level="participant")
    workflow = SimpleNamespace(visit_desc=lambda: f"{text} built on *Nipype* [@nipype1].")
    assert text in write_methods(config, workflow).read_text()
    tex = (root / "logs/CITATION.tex").read_text()
    assert text in tex and "@nipype1" not in tex
    return (root / "logs/CITATION.html").read_text()


@pytest.mark.parametrize(
    "name", ["out", "o ut", "out [1]", "o*t", "o?t", "out{a,b}", "öut", "#out", "-out", "out%20"]
)
def test_methods_are_written_in_any_directory(tmp_path, name):
    page = write(tmp_path / name, "Images were registered,")
    assert "Images were registered," in page and "Gorgolewski" in page


def test_methods_of_another_directory_are_not_mistaken_for_these(tmp_path):
    write(tmp_path / "oat", "Other images were registered,")
    assert "Other" not in write(tmp_path / "o[ua]t", "Images were registered,")


def test_methods_may_be_written_as_markdown_only(tmp_path):
    config = Config(bids_dir=tmp_path, output_dir=tmp_path, md_only_boilerplate=True)
    text = write_methods(config, SimpleNamespace(visit_desc=lambda: "Images were registered."))
    assert "registered" in text.read_text()
    assert {path.name for path in text.parent.iterdir()} == {"CITATION.md", "CITATION.bib"}


def test_formatted_texts_are_those_of_the_last_run(tmp_path):
    """They are kept while the text is the same, and never those of another text."""
    page = tmp_path / "logs/CITATION.html"
    write(tmp_path, "Images were registered,")
    before = page.stat().st_mtime_ns
    write(tmp_path, "Images were registered,")
    assert page.stat().st_mtime_ns == before
    assert "Other" in write(tmp_path, "Other images were registered,")
    page.unlink()
    assert "Other" in write(tmp_path, "Other images were registered,")
    config = Config(bids_dir=tmp_path, output_dir=tmp_path, md_only_boilerplate=True)
    write_methods(config, SimpleNamespace(visit_desc=lambda: "Nothing was done."))
    assert not page.exists() and not page.with_suffix(".tex").exists()
