"""Model card of trained weights: data, recipe, held-out cost, software and hardware."""

from __future__ import annotations

import platform
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bids_fcnreg import __version__
from bids_fcnreg.bids.templates import Template
from bids_fcnreg.bids.training_images import Brain
from bids_fcnreg.fcn.train import Record


def describe_data(brains: Sequence[Brain]) -> list[dict[str, Any]]:
    """Return name, DOI, license and number of images of each source dataset."""
    counted = Counter(brain.source for brain in brains)
    return [
        {"name": source.name, "doi": source.doi, "license": source.license, "images": number}
        for source, number in counted.items()
    ]


def describe_template(template: Template) -> dict[str, str]:
    """Return the name of a template, and its URI unless it is a local file."""
    reference = template.reference
    local = reference.startswith("file:")
    return {"name": template.space} if local else {"name": template.space, "reference": reference}


def describe_stages(records: Sequence[Record], spacings: Sequence[float]) -> list[dict[str, Any]]:
    """Return the mean cost of the held-out pairs before and after each stage.

    The weights with the lowest cost are kept.
    """
    stages = []
    for stage, spacing in enumerate(spacings):
        own = [record for record in records if record.stage == stage]
        costs = [record.held_out for record in own if record.held_out == record.held_out]
        stages.append(
            {
                "spacing_mm": spacing,
                "updates": max((record.step for record in own), default=0),
                "held_out_cost_start": costs[0] if costs else None,
                "held_out_cost_end": min(costs) if costs else None,
            }
        )
    return stages


def describe_software() -> dict[str, str | None]:
    """Return the versions of the software."""
    return {
        "bids_fcnreg": __version__,
        "commit": _commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def describe_hardware(device: torch.device) -> dict[str, Any]:
    """Return CPU, GPU (if used) and number of threads."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {"cpu": _processor(), "gpu": gpu, "threads": torch.get_num_threads()}


def _commit() -> str | None:
    """Return the git commit of this package, or None outside a repository."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, check=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _processor() -> str:
    """Return the name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
