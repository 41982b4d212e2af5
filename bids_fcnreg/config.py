"""Settings of a run: types, options, help texts and ranges."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from bids_fcnreg import __version__
from bids_fcnreg.fcn.modes import MODES
from bids_fcnreg.option import Option, setting
from bids_fcnreg.resources import available_cpus, available_memory_gb

LEVELS = ("participant", "group")
GROUP_TASKS = ("report", "template", "train")
NETWORKS = ("diffeomorphic", "2017")
SKULL_STRIP = ("auto", "force", "skip")
#: Suffixes of images with the contrast of T1w images, and of others, in order of preference.
T1W_CONTRASTS = ("T1w", "UNIT1")
OTHER_CONTRASTS = ("T2w", "FLAIR", "PDw")
#: Suffixes of images that can be registered; the first of them that a session has is.
REFERENCE_SUFFIXES = (*T1W_CONTRASTS, *OTHER_CONTRASTS)
#: Suffixes of the images that are aligned to the registered image of their session.
ALIGNED_SUFFIXES = (*REFERENCE_SUFFIXES, "T2starw")
OTHER_IMAGES = ("align", "ignore")
SKULL_STRIP_METHODS = ("auto", "deepbet", "anatomy", "synthstrip")
PROCESSING_LEVELS = ("full", "minimal")
#: How the sessions of a participant are treated, as in fMRIPrep.
SESSIONWISE, FIRST_LEX, UNBIASED = "sessionwise", "first-lex", "unbiased"
UNBIASED_OPTION = f"--subject-anatomical-reference {UNBIASED}"  # for messages
#: Interpolations that keep the values of an image, for labels; and all.
LABEL_INTERPOLATIONS = ("nearest", "label")
INTERPOLATIONS = ("linear", *LABEL_INTERPOLATIONS, "cubic", "lanczos")
#: Formats of transform files.
TRANSFORM_FORMATS = ("itk", "ants", "fsl", "freesurfer", "afni", "x5")
CONTRASTS = ("auto", "T1w", "other")
#: Keyword of the identity transform, in place of a file.
IDENTITY = "identity"
#: Templates that need no download: the same when left and right are swapped, and not.
SYMMETRIC_TEMPLATE, ASYMMETRIC_TEMPLATE = "MNI152NLin2009aSym", "MNI152NLin2009cAsym"
BUILTIN_TEMPLATES = (SYMMETRIC_TEMPLATE, ASYMMETRIC_TEMPLATE)
BUILTIN_NAMES = " or ".join(BUILTIN_TEMPLATES)  # for messages
DEFAULT_TEMPLATE = ASYMMETRIC_TEMPLATE
#: Mode of ``--sloppy``.
SLOPPY_MODE = "predict"
MAX_OMP_NTHREADS = 8
#: Prefix of the names of node caches, followed by the version.
CACHE_PREFIX = "bids_fcnreg-"


_FILTERS = "Options for filtering BIDS queries"
_REGISTRATION = "Options for the registration"
_GROUP = "Options for the group level"
_PERFORMANCE = "Options to handle performance"
_SUBSETS = "Options for performing only a subset of the workflow"
_OTHER = "Other options"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of one run.

    Each is an option of the command line, described by ``Config.option``, and a key of the
    configuration file. Those named ``group_*``, ``template_*`` and ``train_*`` are options of the
    group level only.
    """

    bids_dir: Path = setting("root directory of a BIDS dataset")
    output_dir: Path = setting("directory for the derivatives")
    analysis_level: str = setting(
        "stage of the analysis: participant (register every subject) or group",
        default="participant",
        choices=LEVELS,
    )

    skip_validation: bool = setting(
        "do not run the BIDS validator over the dataset",
        _FILTERS,
        default=False,
        flags=("--skip-bids-validation",),
    )
    participants: tuple[str, ...] = setting(
        "participants to process, with or without 'sub-'",
        _FILTERS,
        default=(),
        flags=("--participant-label",),
        metavar="LABEL",
        shown="all",
    )
    sessions: tuple[str, ...] = setting(
        "sessions to process, with or without 'ses-'",
        _FILTERS,
        default=(),
        flags=("--session-label",),
        metavar="LABEL",
        shown="all",
    )
    filter_file: Path | None = setting(
        "JSON file with pybids filters that choose the input files, as in fMRIPrep",
        _FILTERS,
        default=None,
        flags=("--bids-filter-file",),
        metavar="FILE",
    )
    derivatives: tuple[str, ...] = setting(
        "directories of derivatives, such as those of fMRIPrep, in which existing brain masks, "
        "preprocessed images, tissue segmentations and affine transforms are found and used in "
        "place of new ones; NAME=PATH or PATH, one or several",
        _FILTERS,
        default=(),
        flags=("-d", "--derivatives"),
        metavar="NAME=PATH",
        shown="none",
    )
    database_dir: Path | None = setting(
        "accepted for compatibility with fMRIPrep, without effect: the dataset itself is read, so "
        "that the input is never outdated",
        _FILTERS,
        default=None,
        flags=("--bids-database-dir",),
        metavar="DIR",
    )

    templates: tuple[str, ...] = setting(
        "template to register to: a TemplateFlow name with modifiers such as "
        "MNIPediatricAsym:cohort-3:res-1 (cohort-auto chooses by the age of each participant), a "
        "NIfTI file, or the directory tpl-NAME of a study template; one or several",
        _REGISTRATION,
        default=(DEFAULT_TEMPLATE,),
        flags=("--template",),
        metavar="TEMPLATE",
        shown=f"{DEFAULT_TEMPLATE}; {BUILTIN_NAMES} need no download",
    )
    atlases: tuple[str, ...] = setting(
        "atlas of the template to resample to the space of each subject: a TemplateFlow atlas or "
        "desc name, or a NIfTI file, optionally with a lookup TSV beside it; one or several",
        _REGISTRATION,
        default=(),
        flags=("--atlas",),
        metavar="ATLAS",
        shown="the tissue classes of a built-in template",
    )
    mode: str = setting(
        "; ".join(f"{mode.name}: {mode.summary}" for mode in MODES.values()),
        _REGISTRATION,
        default=next(iter(MODES)),
        choices=tuple(MODES),
    )
    sloppy: bool = setting(
        f"for testing only: fast and less accurate, the same as --mode {SLOPPY_MODE}",
        _REGISTRATION,
        default=False,
    )
    network: str = setting(
        "network: the multi-resolution diffeomorphic network, or that of Li & Fan 2017",
        _REGISTRATION,
        default=NETWORKS[0],
        choices=NETWORKS,
    )
    model: Path | None = setting(
        "weights made by fcnreg train, in place of those of the package",
        _REGISTRATION,
        default=None,
        metavar="FILE",
    )
    device: str = setting(
        "device of the registration",
        _REGISTRATION,
        default="auto",
        metavar="{auto,cpu,cuda,cuda:N}",
        shown="auto, a GPU if there is one",
    )
    subject_anatomical_reference: str = setting(
        "sessionwise: register each session of a participant on its own; first-lex: average the "
        "images of all sessions in the space of the first one, and register this average; "
        "unbiased: register the sessions to each other first, in an unbiased midpoint space, and "
        "to the template through their mean image",
        _REGISTRATION,
        default=SESSIONWISE,
        choices=(SESSIONWISE, FIRST_LEX, UNBIASED),
    )
    reference_session: str | None = setting(
        "with --subject-anatomical-reference unbiased, compute the changes relative to this "
        "session, with or without 'ses-'",
        _REGISTRATION,
        default=None,
        metavar="LABEL",
        shown="the first session, by acq_time or else by label",
    )
    reference_suffix: str | None = setting(
        "suffix of the image of a session that is registered",
        _REGISTRATION,
        default=None,
        choices=REFERENCE_SUFFIXES,
        shown="T1w, or the first that a session has of UNIT1, T2w, FLAIR, PDw",
    )
    other_images: str = setting(
        "align: align the other anatomical images of a session (T2w, FLAIR, PDw, T2starw, UNIT1, "
        "T1w with contrast agent) rigidly to the registered one, and resample them to its grid "
        "and to the templates; ignore: do not use them",
        _REGISTRATION,
        default=OTHER_IMAGES[0],
        choices=OTHER_IMAGES,
    )
    lesion_masks: tuple[str, ...] = setting(
        "lesion masks outside of the anat directories, as glob patterns relative to the dataset, "
        "for example 'derivatives/*/sub-*/anat/*_space-FLAIR_*_mask.nii.gz', in quotes",
        _REGISTRATION,
        default=(),
        flags=("--lesion-masks",),
        metavar="PATTERN",
        shown="none",
    )
    skull_strip: str = setting(
        "auto: skull-strip the image unless it is skull-stripped; force: always skull-strip; "
        "skip: never skull-strip",
        _REGISTRATION,
        default=SKULL_STRIP[0],
        flags=("--skull-strip-t1w",),
        choices=SKULL_STRIP,
    )
    skull_strip_method: str = setting(
        "program that skull-strips: deepbet, for T1w images; anatomy, our own network for any "
        "contrast; synthstrip, FreeSurfer's, which must be installed",
        _REGISTRATION,
        default=SKULL_STRIP_METHODS[0],
        choices=SKULL_STRIP_METHODS,
        shown="auto: deepbet for T1w images, anatomy for others",
    )
    xfm_formats: tuple[str, ...] = setting(
        "further formats of the transforms, besides the ITK .h5 files that are always written; "
        "one or several",
        _REGISTRATION,
        default=(),
        flags=("--xfm-format",),
        choices=TRANSFORM_FORMATS,
        shown="none",
    )
    seed: int = setting(
        "seed of all random numbers",
        _REGISTRATION,
        default=0,
        flags=("--random-seed",),
        metavar="N",
        least=0,
        most=2**63 - 1,
    )

    group_task: str = setting(
        "report: tables, mean images and outliers of the study; template: an unbiased template "
        "of the study's own brains; train: a network trained on the study, with which every scan "
        "is registered",
        _GROUP,
        default=GROUP_TASKS[0],
        choices=GROUP_TASKS,
    )
    template_name: str | None = setting(
        "name of the study template to make, letters and digits; it is written to "
        "OUTPUT_DIR/tpl-NAME, which can be given as --template",
        _GROUP,
        default=None,
        metavar="NAME",
    )
    template_symmetric: bool = setting(
        "make the study template left-right symmetric", _GROUP, default=False
    )
    template_anchored: bool = setting(
        "keep the scale of --template, whose orientation is always kept; otherwise the study "
        "template has the mean size of the brains of the study",
        _GROUP,
        default=False,
    )
    template_warm_start: bool = setting(
        "--template is a study template of nearly the same scans: improve it, instead of starting "
        "from a template of others",
        _GROUP,
        default=False,
    )
    template_iterations: int = setting(
        "maximum number of iterations of the study template",
        _GROUP,
        default=4,
        metavar="N",
        least=1,
    )
    train_steps: tuple[str, ...] = setting(
        "updates in each stage of the training, coarse to fine",
        _GROUP,
        default=(),
        metavar="N",
        shown="suited to some dozens of scans",
    )
    train_from_scratch: bool = setting(
        "start from random weights instead of those of the package", _GROUP, default=False
    )

    nprocs: int = setting(
        "total number of CPUs",
        _PERFORMANCE,
        default=available_cpus,
        flags=("--nprocs", "--nthreads", "--n-cpus"),
        metavar="N",
        least=1,
        shown="all available",
    )
    omp_nthreads: int = setting(
        "threads per process, 0 for the default",
        _PERFORMANCE,
        default=0,
        metavar="N",
        least=0,
        shown="nprocs divided by the number of scans processed at once, at most "
        f"{MAX_OMP_NTHREADS}; 1 with --mode optimize, whose last digits depend on it",
    )
    mem_gb: float = setting(
        "total memory in GB, or with a unit, such as 16G or 16000M",
        _PERFORMANCE,
        default=available_memory_gb,
        flags=("--mem",),
        metavar="GB",
        least=0.1,
        shown="nine tenths of the available memory",
    )
    low_mem: bool = setting(
        "use less memory: one step at a time, with up to --nprocs threads",
        _PERFORMANCE,
        default=False,
    )
    plugin_file: Path | None = setting(
        "YAML file with 'plugin' and 'plugin_args' of Nipype, for example for SLURM",
        _PERFORMANCE,
        default=None,
        flags=("--use-plugin", "--nipype-plugin-file"),
        metavar="FILE",
    )
    resource_monitor: bool = setting(
        "record memory and CPU usage of every node in the work directory",
        _PERFORMANCE,
        default=False,
    )

    boilerplate_only: bool = setting(
        "only write the text for the methods section to logs/CITATION.md",
        _SUBSETS,
        default=False,
        exclusive=True,
    )
    dry_run: bool = setting(
        "only list which scans would be registered to which template, and which results exist",
        _SUBSETS,
        default=False,
        exclusive=True,
    )
    reports_only: bool = setting(
        "only make the visual reports, from existing results",
        _SUBSETS,
        default=False,
        exclusive=True,
    )

    processing_level: str = setting(
        "full: all results; minimal: brain mask, preprocessed image, transforms and quality "
        "metrics only, without labels, resampled images and figures",
        _SUBSETS,
        default=PROCESSING_LEVELS[0],
        flags=("--level",),
        choices=PROCESSING_LEVELS,
    )

    work_dir: Path = setting(
        "directory for intermediate results, which are reused when a run is resumed",
        _OTHER,
        default=lambda: Path("work").absolute(),
        flags=("-w", "--work-dir"),
        metavar="DIR",
        shown="./work",
    )
    clean_workdir: bool = setting(
        "remove earlier intermediate results from the work directory first", _OTHER, default=False
    )
    stop_on_first_crash: bool = setting(
        "stop all subjects as soon as one fails", _OTHER, default=False
    )
    fail_on_qc: bool = setting(
        "exit with 1 also when the verdict on a registration is failed or unknown",
        _OTHER,
        default=False,
    )
    md_only_boilerplate: bool = setting(
        "write the text for the methods section as Markdown only, without HTML and LaTeX",
        _OTHER,
        default=False,
    )
    notrack: bool = setting(
        "accepted for compatibility with fMRIPrep, without effect: nothing is ever tracked",
        _OTHER,
        default=False,
    )
    write_graph: bool = setting(
        "write the graph of the workflow to the work directory", _OTHER, default=False
    )
    verbose: int = setting(
        "print Nipype's messages; twice for debugging",
        _OTHER,
        default=0,
        flags=("-v", "--verbose"),
        least=0,
        shown="progress and warnings",
    )

    @staticmethod
    def option(name: str) -> Option:
        """Return the command-line option of a setting."""
        return Config.__dataclass_fields__[name].metadata["option"]

    @staticmethod
    def flag(name: str) -> str:
        """Return the name of a setting in messages, such as ``--participant-label``."""
        option = Config.option(name)
        if not option.group:
            return option.metavar or name
        long = (flag for flag in option.flags if flag.startswith("--"))
        return next(long, f"--{name.replace('_', '-')}")

    @property
    def cache_dir(self) -> Path:
        """Node cache in `work_dir`; each version has its own."""
        return self.work_dir / f"{CACHE_PREFIX}{__version__}"

    @property
    def longitudinal(self) -> bool:
        """Whether the sessions of a participant are registered to each other first."""
        return self.subject_anatomical_reference == UNBIASED

    @property
    def required_suffix(self) -> str | None:
        """Suffix of all registered images; None if it may differ between sessions."""
        # All sessions of a participant must have one contrast to be registered to each other.
        return self.reference_suffix or ("T1w" if self.longitudinal else None)

    @property
    def makes_everything(self) -> bool:
        """Whether labels, resampled images and figures are made."""
        return self.processing_level == "full"

    @property
    def aligns_others(self) -> bool:
        """Whether other images of a session are aligned to the registered one."""
        return self.other_images == "align" and self.makes_everything

    def with_threads(self, scans_at_once: int = 1) -> Config:
        """Return the settings with a number of threads per process, unless it is given.

        Parameters
        ----------
        scans_at_once : int
            Number of scans that share the CPUs.
        """
        if self.omp_nthreads:
            return self
        # The result of `optimize` depends on the number of threads: keep it independent of the
        # number of CPUs.
        threads = self.nprocs // scans_at_once if MODES[self.mode].trained else 1
        return replace(self, omp_nthreads=max(1, min(threads, MAX_OMP_NTHREADS)))
