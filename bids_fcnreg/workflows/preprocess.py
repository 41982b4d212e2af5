"""Preprocess the images of one session for registration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from niworkflows.engine.workflows import LiterateWorkflow

from bids_fcnreg.bids.scan import Precomputed
from bids_fcnreg.interfaces.brain_extraction import BrainExtraction
from bids_fcnreg.interfaces.precomputed import ReuseMask
from bids_fcnreg.interfaces.preprocess import (
    AverageRuns,
    BiasCorrection,
    Conform,
    NormalizeIntensity,
    UniteLesions,
)
from bids_fcnreg.workflows.resources import (
    DEFAULT_VOXELS,
    EXTRACT,
    PREPROCESS,
    average_of,
    by_content,
    field_node,
    sized_node,
)

if TYPE_CHECKING:
    from bids_fcnreg.bids.scan import Scan
    from bids_fcnreg.config import Config

#: Programs that extract brains, with their citation.
METHODS = {
    "deepbet": "*deepbet* [@deepbet]",
    "anatomy": "a network trained on simulated images [@synthseg]",
    "synthstrip": "*SynthStrip* [@synthstrip]",
}

#: Description of the extraction, by ``--skull-strip-t1w``.
EXTRACTION = {
    "auto": "The brain was extracted with {method}, unless the image was skull-stripped already. ",
    "force": "The brain was extracted with {method}. ",
    "skip": "The images were skull-stripped already. ",
}


def init_preprocess_wf(
    *,
    n_runs: int,
    n_sessions: int = 1,
    skull_strip: str,
    method: str,
    omp_nthreads: int,
    has_lesion: bool,
    precomputed: Precomputed | None = None,
    voxels: int = DEFAULT_VOXELS,
    name: str = "preprocess_wf",
) -> LiterateWorkflow:
    """Reorient, average, skull-strip, correct the bias field, normalize intensities.

    Parameters
    ----------
    n_runs : int
        Number of images to average, which differ only in their run and session entities.
    n_sessions : int
        Number of sessions they are of.
    skull_strip : {"auto", "force", "skip"}
        Extract the brain unless skull-stripped, always, or never.
    method : {"deepbet", "anatomy", "synthstrip"}
        Program that extracts the brain.
    omp_nthreads : int
        Maximum number of threads per node.
    has_lesion : bool
        Whether there are lesion masks.
    precomputed : Precomputed, optional
        Existing results. The image is not corrected again; the mask replaces brain extraction.
    voxels : int
        Number of voxels of the first run.
    name : str
        Name of the workflow.

    Inputs
    ------
    images
        Images (runs) of one session.
    lesions
        Lesion masks, on any grid, in the space of the first run.

    Outputs
    -------
    preproc
        Mean of the runs on the grid of the first, reoriented to RAS; bias-corrected, 100 at the
        brain's 98th percentile; with its skull unless skull-stripped in the input.
    brain
        The same, 0 outside the brain.
    mask
        Brain mask.
    exclude
        United lesion masks; undefined without lesions.
    skull_stripped
        Whether the image was skull-stripped in the input.
    runs
        Sidecar fields about the averaged runs; see
        `bids_fcnreg.preprocessing.runs.describe_average`.
    """
    workflow = LiterateWorkflow(name=name)
    reused = precomputed or Precomputed()
    workflow.__desc__ = _description(n_runs, n_sessions, skull_strip, method, has_lesion, reused)
    inputnode = field_node("inputnode", "images", "lesions")
    results = ("preproc", "brain", "mask", "exclude", "skull_stripped", "runs")
    outputnode = field_node("outputnode", *results)
    conform = sized_node(Conform(), "conform", PREPROCESS, voxels, iterfield=["in_file"])
    by_content(conform)
    average = sized_node(
        AverageRuns(num_threads=omp_nthreads if n_runs > 1 else 1),
        "average",
        average_of(n_runs),
        voxels,
    )
    extract = sized_node(
        BrainExtraction(mode=skull_strip, extractor=method, num_threads=omp_nthreads),
        "extract",
        EXTRACT,
        voxels,
    )
    if reused.mask is not None:
        extract = sized_node(ReuseMask(mask=str(reused.mask)), "extract", PREPROCESS, voxels)
        by_content(extract)
    scale = sized_node(NormalizeIntensity(), "scale", PREPROCESS, voxels)
    workflow.connect([
        (inputnode, conform, [("images", "in_file")]),
        (conform, average, [("out_file", "in_files")]),
        (average, extract, [("out_file", "in_file")]),
        (average, outputnode, [("runs", "runs")]),
        (extract, scale, [("mask", "mask")]),
        (extract, outputnode, [("mask", "mask"), ("skull_stripped", "skull_stripped")]),
        (scale, outputnode, [("out_file", "preproc"), ("brain", "brain")]),
    ])  # fmt: skip
    if reused.preproc is not None:
        workflow.connect(average, "out_file", scale, "in_file")
    else:
        debias = sized_node(BiasCorrection(), "debias", PREPROCESS, voxels)
        workflow.connect([
            (average, debias, [("out_file", "in_file")]),
            (extract, debias, [("mask", "mask")]),
            (debias, scale, [("out_file", "in_file")]),
        ])  # fmt: skip
    if has_lesion:
        unite = by_content(sized_node(UniteLesions(), "unite_lesions", PREPROCESS, voxels))
        workflow.connect([
            (inputnode, unite, [("lesions", "in_files")]),
            (average, unite, [("out_file", "reference")]),
            (extract, unite, [("mask", "mask")]),
            (unite, outputnode, [("out_file", "exclude")]),
        ])  # fmt: skip
    return workflow


def extractor(config: Config, scan: Scan) -> str:
    """Return the program that extracts the brain of a scan."""
    if config.skull_strip_method != "auto":
        return config.skull_strip_method
    return "deepbet" if scan.is_t1w else "anatomy"


def describe_extraction(text: str, stripped: Sequence[bool]) -> str:
    """Replace the description of mode ``auto`` in a methods text by what it did.

    Parameters
    ----------
    text : str
        Description of the workflow.
    stripped : sequence of bool
        Whether each image was skull-stripped in the input.
    """
    already = sum(stripped)
    described = {name: EXTRACTION["auto"].format(method=METHODS[name]).strip() for name in METHODS}
    used = [name for name, one in described.items() if one in text]
    if not stripped or len(used) != 1:
        return text
    (name,) = used
    if already in (0, len(stripped)):
        done = EXTRACTION["skip" if already else "force"].format(method=METHODS[name])
    else:
        done = (
            f"The brain was extracted with {METHODS[name]} in {len(stripped) - already} of "
            f"{len(stripped)} images; the others were skull-stripped already. "
        )
    return text.replace(described[name], done.strip())


def _description(
    n_runs: int,
    n_sessions: int,
    skull_strip: str,
    method: str,
    has_lesion: bool,
    reused: Precomputed,
) -> str:
    """Describe the workflow for the methods section of a paper."""
    parts = []
    if n_sessions > 1:
        parts.append(
            f"The images of {n_sessions} sessions were averaged in the space of the first one "
            "after rigid alignment, excluding images that were not similar to the first. "
        )
    elif n_runs > 1:
        parts.append(
            f"The {n_runs} runs of the session were averaged after rigid alignment, excluding "
            "runs that were not similar to the first. "
        )
    scaling = "scaled so that their 98th percentile inside the brain is 100. "
    if reused.preproc:
        parts.append(
            f"The preprocessed image was taken from {reused.origins[reused.preproc]}; its "
            f"intensities were {scaling}"
        )
    if reused.mask:
        parts.append(f"The brain mask was taken from {reused.origins[reused.mask]}. ")
    else:
        parts.append(EXTRACTION[skull_strip].format(method=METHODS[method]))
    if not reused.preproc:
        parts.append(
            "Intensity non-uniformity inside the brain was corrected with N4 [@n4], and "
            f"intensities were {scaling}"
        )
    if has_lesion:
        parts.append("Lesions were excluded from the similarity metric of the registration. ")
    return "".join(parts)
