"""Study-level results: mean images, tables, figures and web page."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import compress
from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    InputMultiObject,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from bids_fcnreg.atomic import publish
from bids_fcnreg.bids.derivatives import write_json, write_tsv
from bids_fcnreg.bids.results import read_volumes
from bids_fcnreg.io.nifti import write
from bids_fcnreg.study.mean_images import image_moments, mask_volume, similarity_to_mean
from bids_fcnreg.study.page import SpacePart, make_page
from bids_fcnreg.study.tables import (
    Row,
    add_metrics,
    flag_outliers,
    quality_dictionary,
    quality_table,
    volumes_dictionary,
    volumes_table,
)


class _StudyImagesInputSpec(BaseInterfaceInputSpec):
    t1w = InputMultiObject(File(exists=True), mandatory=True, desc="images of all scans")
    masks = InputMultiObject(File(exists=True), mandatory=True, desc="their brain masks")
    log_jacobian = InputMultiObject(
        File(exists=True), mandatory=True, desc="their log-Jacobian maps"
    )
    included = traits.List(
        traits.Bool, desc="scans to average (default: all); all are compared with the means"
    )


class _StudyImagesOutputSpec(TraitedSpec):
    t1w_mean = File(exists=True, desc="mean image")
    t1w_sd = File(exists=True, desc="standard deviation of the images")
    log_jacobian_mean = File(exists=True, desc="mean log-Jacobian")
    log_jacobian_sd = File(exists=True, desc="standard deviation of the log-Jacobian")
    mask = File(exists=True, desc="brain in at least half of the scans")
    similarity = File(
        exists=True, desc="JSON: for each scan its correlation with the mean, its mask overlap"
    )
    picture = File(exists=True, desc="the mean images (PNG)")


class StudyImages(SimpleInterface):
    """Average the scans of a study in one space, one in memory at a time."""

    input_spec = _StudyImagesInputSpec
    output_spec = _StudyImagesOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_fcnreg.study.figures import draw_means  # imports Matplotlib and nilearn

        directory = Path(runtime.cwd)
        included = [True] * len(self.inputs.t1w)
        if isdefined(self.inputs.included):
            included = self.inputs.included
        t1w = image_moments(list(compress(self.inputs.t1w, included)))
        log_jacobian = image_moments(list(compress(self.inputs.log_jacobian, included)))
        mask, scans = similarity_to_mean(self.inputs.t1w, self.inputs.masks, t1w.mean, included)
        made = {
            "t1w_mean": t1w.mean,
            "t1w_sd": t1w.sd,
            "log_jacobian_mean": log_jacobian.mean,
            "log_jacobian_sd": log_jacobian.sd,
            "mask": mask,
        }
        for name, nifti in made.items():
            self._results[name] = str(write(directory / f"{name}.nii.gz", nifti))
        (directory / "similarity.json").write_text(json.dumps(scans))
        self._results["similarity"] = str(directory / "similarity.json")
        of_t1w, of_growth = ((m.mean, m.sd) for m in (t1w, log_jacobian))
        picture = draw_means(of_t1w, of_growth, mask, directory / "means.png")
        self._results["picture"] = str(picture)
        return runtime


class _TableInputSpec(BaseInterfaceInputSpec):
    rows = traits.List(traits.Dict, mandatory=True, desc="fields of `Row` for all scans")
    done = traits.List(traits.Str, mandatory=True, desc="labels of the scans that have results")
    space = traits.Str(mandatory=True, desc="template's space")


class _TableOutputSpec(TraitedSpec):
    table = File(exists=True, desc="TSV")
    dictionary = File(exists=True, desc="JSON data dictionary")


class _StudyQualityInputSpec(_TableInputSpec):
    quality = InputMultiObject(
        File(exists=True), mandatory=True, desc="JSON of each scan with results"
    )
    similarity = File(exists=True, mandatory=True, desc="of `StudyImages`")


class _StudyQualityOutputSpec(_TableOutputSpec):
    rows = File(exists=True, desc="JSON: rows with metrics and outliers")
    picture = File(exists=True, desc="distributions of the metrics (PNG)")


class StudyQuality(SimpleInterface):
    """Tabulate the quality metrics of all registrations to one space, and flag outliers."""

    input_spec = _StudyQualityInputSpec
    output_spec = _StudyQualityOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_fcnreg.study.figures import draw_distributions  # imports Matplotlib

        directory = Path(runtime.cwd)
        rows = [Row(**fields) for fields in self.inputs.rows]
        metrics = [json.loads(Path(path).read_text()) for path in self.inputs.quality]
        similarity = json.loads(Path(self.inputs.similarity).read_text())
        add_metrics(rows, dict(zip(self.inputs.done, metrics, strict=True)), similarity)
        flag_outliers(rows)
        self._results["picture"] = str(draw_distributions(rows, directory / "quality.png"))
        self._results |= _write(
            directory, quality_table(rows), quality_dictionary(rows, self.inputs.space)
        )
        (directory / "rows.json").write_text(json.dumps([asdict(row) for row in rows]))
        self._results["rows"] = str(directory / "rows.json")
        return runtime


class _StudyVolumesInputSpec(_TableInputSpec):
    volumes = InputMultiObject(File(exists=True), mandatory=True, desc="TSV of each scan")
    masks = InputMultiObject(File(exists=True), mandatory=True, desc="brain masks, native")
    atlas = traits.Str(mandatory=True, desc="name of the atlas")


class StudyVolumes(SimpleInterface):
    """Tabulate the volumes of an atlas's regions in all scans."""

    input_spec = _StudyVolumesInputSpec
    output_spec = _TableOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        rows = [Row(**fields) for fields in self.inputs.rows]
        done = self.inputs.done
        volumes = dict(zip(done, map(read_volumes, self.inputs.volumes), strict=True))
        brains = dict(zip(done, map(mask_volume, self.inputs.masks), strict=True))
        self._results |= _write(
            Path(runtime.cwd),
            volumes_table(rows, volumes, brains),
            volumes_dictionary(rows, volumes, self.inputs.atlas, self.inputs.space),
        )
        return runtime


class _StudyPageInputSpec(BaseInterfaceInputSpec):
    dataset = traits.Str(mandatory=True, desc="name of the study")
    spaces = traits.List(traits.Str, mandatory=True, desc="template spaces")
    rows = InputMultiObject(File(exists=True), mandatory=True, desc="of `StudyQuality`, by space")
    means = InputMultiObject(File(exists=True), mandatory=True, desc="pictures by space")
    distributions = InputMultiObject(File(exists=True), mandatory=True, desc="the same")


class _StudyPageOutputSpec(TraitedSpec):
    page = File(exists=True, desc="HTML")


class StudyPage(SimpleInterface):
    """Make the web page of a study."""

    input_spec = _StudyPageInputSpec
    output_spec = _StudyPageOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        fields = (self.inputs.rows, self.inputs.means, self.inputs.distributions)
        parts = [
            SpacePart(
                space,
                [Row(**fields) for fields in json.loads(Path(rows).read_text())],
                Path(means),
                Path(distributions),
            )
            for space, rows, means, distributions in zip(self.inputs.spaces, *fields, strict=True)
        ]
        page = Path(runtime.cwd) / "group.html"
        page.write_text(make_page(self.inputs.dataset, parts), encoding="utf-8")
        self._results["page"] = str(page)
        return runtime


class _PublishInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="result in the work directory")
    out_file = traits.Str(mandatory=True, desc="its path in the derivatives")


class _PublishOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="the published file")


class Publish(SimpleInterface):
    """Copy a file to its final path atomically."""

    input_spec = _PublishInputSpec
    output_spec = _PublishOutputSpec
    _always_run = True

    def _run_interface(self, runtime: Any) -> Any:
        self._results["out_file"] = str(publish(self.inputs.in_file, self.inputs.out_file))
        return runtime


def _write(
    directory: Path, table: tuple[list[str], list[list[object]]], dictionary: dict[str, Any]
) -> dict[str, str]:
    """Write a table and its data dictionary; return their paths by output name."""
    header, lines = table
    return {
        "table": str(write_tsv(directory / "table.tsv", header, lines)),
        "dictionary": str(write_json(directory / "table.json", dictionary)),
    }
