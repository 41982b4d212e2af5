"""A training job: from images to weights, with checkpoints from which it resumes."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from bids_fcnreg import __version__
from bids_fcnreg.atomic import read_json, remove_stale_temporaries
from bids_fcnreg.bids.derivatives import write_json
from bids_fcnreg.bids.templates import Template
from bids_fcnreg.bids.training_images import Brain
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn import distributed
from bids_fcnreg.fcn.nets import checkpoint
from bids_fcnreg.fcn.pair import Pair
from bids_fcnreg.fcn.train import Record, Trainer, Training, read_checkpoint
from bids_fcnreg.fcn.training_pairs import Augmentation, Cohort
from bids_fcnreg.training import model_card
from bids_fcnreg.training.aligned_images import (
    MIN_IMAGES,
    Aligner,
    align_all,
    check_skull_stripped,
    split_held_out,
)
from bids_fcnreg.training.learning_curves import write_curves
from bids_fcnreg.training.progress import TrainingDisplay, stage_title


@dataclass(frozen=True)
class TrainingFiles:
    """Paths of the files of one training.

    Attributes
    ----------
    model, card, table, figure : Path
        Results: weights, model card, table and figure of the learning curves.
    work, checkpoint, settings, aligned : Path
        Work directory; checkpoint, settings and aligned images in it.
    """

    model: Path
    card: Path
    table: Path
    figure: Path
    work: Path
    checkpoint: Path
    settings: Path
    aligned: Path

    @classmethod
    def of(cls, model: Path, work: Path | None = None) -> TrainingFiles:
        """Return all paths for a file of weights; by default, `work` is a directory beside it."""
        model = model.expanduser().absolute()
        work = (work or model.with_name(f".{model.stem}-work")).expanduser().absolute()
        return cls(
            model,
            model.with_suffix(".json"),
            model.with_name(f"{model.stem}_curves.tsv"),
            model.with_name(f"{model.stem}_curves.png"),
            work,
            work / "checkpoint.pt",
            work / "settings.json",
            work / "aligned",
        )

    def are_complete(self) -> bool:
        """Return whether intact weights and their model card exist."""
        return self.card.exists() and checkpoint.is_intact(self.model)

    def make_directories(self) -> None:
        """Create the directories.

        Raises
        ------
        InputError
            If one cannot be written.
        """
        for directory in (self.model.parent, self.work):
            try:
                directory.mkdir(parents=True, exist_ok=True)
                reason = None if os.access(directory, os.W_OK) else "no permission to write"
            except OSError as error:
                reason = error.strerror
            if reason is not None:
                raise InputError(
                    f"The directory {directory} cannot be used ({reason}). Choose another one."
                )

    def remove_stale_files(self) -> None:
        """Remove temporary files of a killed training."""
        remove_stale_temporaries(self.model.parent.glob(f".{self.model.stem}*"))
        remove_stale_temporaries(self.work.rglob(".*"))
        remove_stale_temporaries(self.aligned.glob(".*"))


@dataclass(frozen=True, eq=False)
class Job:
    """Network, data and recipe of a training.

    Parameters
    ----------
    files : TrainingFiles
        Paths of its files.
    network : RegistrationNetwork
        Network before training.
    recipe : Training
        Recipe of the training.
    start_from : str or None
        Checksum of the initial weights; None if they are random.
    template : Template
        Template to which all images are aligned.
    brains : tuple of Brain
        Images.
    held_out : int or None
        Number of held-out images, see `split_held_out`.
    seed : int
        Seed of all random numbers.
    device : torch.device
        Device to train on.
    """

    files: TrainingFiles
    network: checkpoint.RegistrationNetwork
    recipe: Training
    start_from: str | None
    template: Template
    brains: tuple[Brain, ...]
    held_out: int | None
    seed: int
    device: torch.device

    def run(self, display: TrainingDisplay) -> None:
        """Train, or resume the training, and write the results.

        Raises
        ------
        InputError
            If there are too few images or whole heads, if processes cannot share a batch, if the
            work directory holds a training with other settings, or if the weights would overwrite
            others.
        """
        if len(self.brains) < MIN_IMAGES:
            raise InputError(
                f"{len(self.brains)} images are too few. Provide at least {MIN_IMAGES}."
            )
        split_held_out(self.brains, self.held_out, self.seed)  # check the number early
        if self.recipe.batch % distributed.world_size():
            raise InputError(
                f"{distributed.world_size()} processes cannot share {self.recipe.batch} pairs "
                "evenly. Set --batch to a multiple of the number of processes."
            )
        self._check_resumable(self._settings())
        if self._is_done():
            display.say(f"{self.files.model} has already been trained with these settings.")
            return
        self.files.make_directories()
        self.files.remove_stale_files()
        used, cohort = self._align(display)
        left_out = [brain.image.name for brain in self.brains if brain not in used]
        settings = self._settings() | {"images left out": left_out}
        self._check_resumable(settings)
        distributed.barrier()  # until all processes have read the previous settings
        if distributed.rank() == 0:
            write_json(self.files.settings, settings)
        trained, held = split_held_out(used, self.held_out, self.seed)
        if held:
            display.say(f"Held out: {', '.join(used[n].image.name for n in held)}")
        else:
            display.say("No images are held out. Stages do not stop early.")
        trainer = self._trainer(cohort, trained, held, display)
        self._train(trainer, display)
        if distributed.rank() == 0:
            self._finish(trainer, used, {"trained_on": len(trained), "held_out": len(held)})
        distributed.barrier()
        display.say(f"Trained weights: {self.files.model}; model card: {self.files.card}")

    def resume_hint(self) -> str:
        """Describe how the same command would resume."""
        if not self.files.checkpoint.exists():
            return (
                "Run the same command again to reuse the aligned images and restart from scratch"
            )
        stage, step, *_ = read_checkpoint(self.files.checkpoint)["place"]
        return f"Run the same command again to resume from update {step} of stage {stage + 1}"

    def _settings(self) -> dict[str, Any]:
        """Return all settings that determine the weights, by readable names, as JSON values."""
        recipe = {name.replace("_", " "): value for name, value in asdict(self.recipe).items()}
        recipe |= recipe.pop("objective")
        settings = {
            "network": checkpoint.architecture_of(self.network),
            "network's arguments": self.network.arguments,
            **recipe,
            "augmentation": asdict(Augmentation()),
            "start from": self.start_from,
            "held-out": self.held_out,
            "random seed": self.seed,
            "template": Brain(self.template.t1w, self.template.mask).fingerprint,
            "images": [brain.fingerprint for brain in self.brains],
            "version of fcnreg": __version__,
        }
        return json.loads(json.dumps(settings))

    def _check_resumable(self, settings: dict[str, Any]) -> None:
        """Refuse to resume a training with other settings."""
        if not self.files.checkpoint.exists():
            return
        previous = read_json(self.files.settings)
        if not previous:
            raise InputError(
                f"{self.files.settings} is missing or damaged. Delete its directory to restart "
                "the training from scratch."
            )
        other = [
            name
            for name, value in settings.items()
            if name not in previous or previous[name] != value
        ]
        if other:
            raise InputError(
                f"The training in {self.files.work} was started with other settings "
                f"({', '.join(other)}). Use the same settings to resume it, or delete the "
                "directory to restart from scratch."
            )

    def _is_done(self) -> bool:
        """Return whether the results exist; refuse to overwrite weights of other origin."""
        if not self.files.model.exists():
            return False
        ended = False
        if self.files.checkpoint.exists():
            stage, *_ = read_checkpoint(self.files.checkpoint)["place"]
            ended = stage >= len(self.recipe.steps)
        if not ended:
            raise InputError(
                f"{self.files.model} already exists, but the training in {self.files.work} is "
                "not complete. Delete the file, or choose another name with -o."
            )
        return self.files.are_complete()

    def _align(self, display: TrainingDisplay) -> tuple[list[Brain], Cohort]:
        """Align all images and report the progress."""
        aligner = Aligner(self.template, min(self.network.spacings), self.files.aligned)

        def report(done: int, message: str) -> None:
            display.update("Aligning images", done, len(self.brains))
            if message:
                display.say(message)

        cached = sum(aligner.cache_file(brain).exists() for brain in self.brains)
        display.say(f"{len(self.brains)} images, {cached} of them aligned by a previous run")
        check_skull_stripped(self.brains, aligner)
        if distributed.world_size() > 1:
            # Each process aligns some images; then all processes read all of them.
            for brain in self.brains[distributed.rank() :: distributed.world_size()]:
                with suppress(Exception):  # reported when it is tried again
                    aligner(brain)
            distributed.barrier()
        return align_all(self.brains, aligner, report)

    def _trainer(
        self, cohort: Cohort, trained: list[int], held: list[int], display: TrainingDisplay
    ) -> Trainer:
        """Return the trainer on the template and training images, validated on the others."""
        spacings = self.network.spacings
        levels = [cohort.coarser(spacing).to(self.device) for spacing in spacings]
        # The template comes first in the cohort.
        members = [level.subset([0, *(n + 1 for n in trained)]) for level in levels]
        validation = [level.subset([n + 1 for n in held]) for level in levels]
        augmentation = Augmentation()

        def draw(stage: int, generator: torch.Generator) -> Pair:
            display.update(stage_title(stage, spacings), trainer.step, self.recipe.steps[stage])
            return members[stage].random_pair(augmentation, generator)

        def held_out_pairs(stage: int) -> list[Pair]:
            return list(validation[stage].all_pairs())

        self.network.to(self.device)
        trainer = Trainer(
            self.network,
            self.recipe,
            draw,
            held_out_pairs if held else None,
            self.seed,
            reinitialize=self.start_from is None,
        )
        return trainer

    def _train(self, trainer: Trainer, display: TrainingDisplay) -> None:
        """Train, and update the learning curves."""

        def update_curves() -> None:
            table, figure = self.files.table, self.files.figure
            write_curves(table, figure, trainer.records, self.network.spacings)

        def report(record: Record) -> None:
            display.record(record, self.network.spacings, self.recipe.steps)
            if distributed.rank() == 0:
                update_curves()

        if self.files.checkpoint.exists():
            display.say(f"Resuming from {self.files.checkpoint}")
        trainer.run(report, self.files.checkpoint)
        if distributed.rank() == 0:
            update_curves()

    def _finish(self, trainer: Trainer, used: list[Brain], images: dict[str, int]) -> None:
        """Write the weights and the model card."""
        checkpoint.save(self.network, self.files.model)
        _, checksum = checkpoint.load(self.files.model)
        card = {
            "name": self.files.model.stem,
            "sha256": checksum,
            "network": checkpoint.architecture_of(self.network),
            "arguments": self.network.arguments,
            "data": model_card.describe_data(used),
            "images": images,
            "template": model_card.describe_template(self.template),
            "recipe": asdict(self.recipe) | {"augmentation": asdict(Augmentation())},
            "started_from": self.start_from,
            "random_seed": self.seed,
            "stages": model_card.describe_stages(trainer.records, self.network.spacings),
            "hours": round(trainer.seconds / 3600, 4),
            "software": model_card.describe_software(),
            "hardware": model_card.describe_hardware(self.device),
        }
        write_json(self.files.card, card)
