"""The group task `train`: train a network on the cohort and register every scan with it."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from bids_fcnreg.app import participant, preflight
from bids_fcnreg.atomic import publish
from bids_fcnreg.bids.results import find_preprocessed
from bids_fcnreg.bids.scan import Scan
from bids_fcnreg.bids.templates import resolve_template
from bids_fcnreg.bids.training_images import Brain
from bids_fcnreg.config import Config
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn import distributed
from bids_fcnreg.fcn.device import resolve_device
from bids_fcnreg.fcn.nets import checkpoint
from bids_fcnreg.fcn.nets.checkpoint import RegistrationNetwork, architecture_of
from bids_fcnreg.fcn.nets.packaged_weights import PACKAGED_WEIGHTS
from bids_fcnreg.fcn.train import COHORT_RECIPES, Training
from bids_fcnreg.training.aligned_images import MIN_IMAGES
from bids_fcnreg.training.job import Job, TrainingFiles
from bids_fcnreg.training.progress import TrainingDisplay
from bids_fcnreg.training.recipe import untrained_network, with_steps
from bids_fcnreg.workflows.group_report import DIRECTORY

#: Name of the network in the group directory of the derivatives, without extension.
NETWORK = "network"

#: Updates in each stage when training starts from trained weights.
FINE_TUNING_STEPS = {"diffeomorphic": (100, 200, 0), "2017": (1000,)}


def train(config: Config, scans: Sequence[Scan], console: Console) -> int:
    """Train a network on the brains of the study, and register every scan with it.

    Processes started by `torchrun` share the training; only rank 0 registers.

    Returns
    -------
    int
        0, or 1 if a scan could not be registered.

    Raises
    ------
    FcnregError
        If the network cannot be trained, or no scan could be registered with it.
    """
    preflight.find_templates(config)  # report errors before hours of training
    with distributed.process_group(resolve_device(config.device)) as device, ExitStack() as lock:
        leads = distributed.rank() == 0
        if leads:
            preflight.make_directories(config)
            lock.enter_context(preflight.locked_directories(config, ["a training"], console))
        distributed.barrier()
        trained = _trained(config, scans, device, console)
    if not leads:
        return participant.DONE
    gc.collect()
    torch.cuda.empty_cache()  # the node processes need the memory
    model = _publish(trained, config.output_dir)
    console.print(f"Network: {model}. Registering every scan with it")
    participant_config = replace(
        config, analysis_level="participant", model=model, clean_workdir=False
    )
    return participant.run(participant_config, console)


def _trained(
    config: Config, scans: Sequence[Scan], device: torch.device, console: Console
) -> Path:
    """Train the network; return the file of the weights, in the work directory."""
    torch.set_num_threads(config.with_threads().omp_nthreads)
    brains = preprocessed_brains(config, scans)
    template = resolve_template(config.templates[0])
    network, start = _network(config)
    work = config.cache_dir / "train_wf"
    directory = work / _digest(config, [*brains, Brain(template.t1w, template.mask)], start)
    files = replace(
        TrainingFiles.of(directory / f"{NETWORK}.safetensors", directory), aligned=work / "aligned"
    )
    if distributed.broadcast(files.are_complete()):
        console.print("The network has already been trained on these scans.")
        return files.model
    job = Job(
        files=files,
        network=network,
        recipe=_recipe(config, network, start),
        start_from=start,
        template=template,
        brains=brains,
        held_out=None,
        seed=config.seed,
        device=device,
    )
    with TrainingDisplay(console) as display:
        job.run(display)
    return files.model


def preprocessed_brains(config: Config, scans: Sequence[Scan]) -> tuple[Brain, ...]:
    """Find the preprocessed images of the scans.

    Raises
    ------
    InputError
        If there are too few.
    """
    found = find_preprocessed(config.output_dir, (scan for scan in scans if scan.is_t1w))
    if len(found) < MIN_IMAGES:
        raise InputError(
            f"{config.output_dir} holds {len(found)} preprocessed T1w images, but training needs "
            f"at least {MIN_IMAGES}. Run `bids_fcnreg {config.bids_dir} {config.output_dir} "
            "participant` first."
        )
    return tuple(Brain(t1w, mask) for _, t1w, mask in found)


def _digest(config: Config, brains: Sequence[Brain], start: str | None) -> str:
    """Return a hash of the images, the initial weights and the settings."""
    settings = (start, config.network, config.train_steps, config.seed)
    hashed = [*(brain.fingerprint for brain in brains), *map(str, settings)]
    return hashlib.sha256("\n".join(hashed).encode()).hexdigest()[:12]


def _network(config: Config) -> tuple[RegistrationNetwork, str | None]:
    """Return the network before training, and the checksum of its initial weights."""
    shipped = PACKAGED_WEIGHTS / f"{config.network}.safetensors"
    start = config.model or (shipped if shipped.is_file() else None)
    if config.train_from_scratch or start is None:
        return untrained_network(config.network, config.seed), None
    network, checksum = checkpoint.load(start)
    return network.train(), checksum


def _recipe(config: Config, network: RegistrationNetwork, start: str | None) -> Training:
    """Return the recipe of the training."""
    kind = architecture_of(network)
    recipe = COHORT_RECIPES[kind]
    default = recipe.steps if start is None else FINE_TUNING_STEPS[kind]
    steps = tuple(map(int, config.train_steps)) or default
    return with_steps(replace(recipe, batch=distributed.world_size()), steps, "--train-steps")


def _publish(trained: Path, output_dir: Path) -> Path:
    """Copy the network, its model card and its learning curves to the derivatives."""
    endings = (".safetensors", ".json", "_curves.tsv", "_curves.png")
    directory = output_dir / DIRECTORY
    for ending in endings:
        publish(trained.with_name(f"{NETWORK}{ending}"), directory / f"{NETWORK}{ending}")
    return directory / f"{NETWORK}.safetensors"
