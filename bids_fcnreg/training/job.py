"""One training from images to weights: begun, gone on with, refused, or found to be done."""

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
    """Where the files of one training are.

    Attributes
    ----------
    model, card, table, picture : Path
        The results: weights, what is to be known about them, curves.
    work, checkpoint, settings, aligned : Path
        The folder of what is needed to go on, and what is in it.
    """

    model: Path
    card: Path
    table: Path
    picture: Path
    work: Path
    checkpoint: Path
    settings: Path
    aligned: Path

    @classmethod
    def of(cls, model: Path, work: Path | None = None) -> TrainingFiles:
        """All of them from the name of the weights; by default `work` is a folder beside them."""
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
        """Whether trained weights, which are whole, and what is to be known of them are there."""
        return self.card.exists() and checkpoint.is_whole(self.model)

    def make_directories(self) -> None:
        """Make the folders.

        Raises
        ------
        InputError
            If one cannot be written.
        """
        for folder in (self.model.parent, self.work):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                reason = None if os.access(folder, os.W_OK) else "no permission to write"
            except OSError as error:
                reason = error.strerror
            if reason is not None:
                raise InputError(f"The folder {folder} cannot be used: {reason}.")

    def remove_stale_files(self) -> None:
        """Remove what a training that was killed left half-written."""
        remove_stale_temporaries(self.model.parent.glob(f".{self.model.stem}*"))
        remove_stale_temporaries(self.work.rglob(".*"))
        remove_stale_temporaries(self.aligned.glob(".*"))


@dataclass(frozen=True, eq=False)
class Job:
    """What to train, on what, and how.

    Parameters
    ----------
    files : TrainingFiles
        Where its files are.
    network : RegistrationNetwork
        As it is before training.
    recipe : Training
        How it is trained.
    start_from : str or None
        Checksum of the weights that the network has, if they were trained before.
    template : Template
        To which all images are aligned.
    brains : tuple of Brain
        The images.
    held_out : int or None
        See `split_held_out`.
    seed : int
        Of everything random.
    device : torch.device
        Where to compute.
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
        """Train, or go on with it, and write the results; nothing is done twice.

        Raises
        ------
        InputError
            If the images are too few or whole heads, if processes cannot share a batch, if a
            training with other settings is under way in the work folder, or if the weights would
            replace others.
        """
        if len(self.brains) < MIN_IMAGES:
            raise InputError(f"{len(self.brains)} images are too few: give at least {MIN_IMAGES}.")
        split_held_out(self.brains, self.held_out, self.seed)  # refuses a wrong number early
        if self.recipe.batch % distributed.size():
            raise InputError(
                f"{distributed.size()} processes cannot share {self.recipe.batch} pairs evenly: "
                "give a --batch that is a multiple of their number."
            )
        self._refuse_other(self._settings())
        if self._is_done():
            display.say(f"{self.files.model} is trained already, like this: nothing to do.")
            return
        self.files.make_directories()
        self.files.remove_stale_files()
        used, cohort = self._align(display)
        left_out = [brain.image.name for brain in self.brains if brain not in used]
        settings = self._settings() | {"images left out": left_out}
        self._refuse_other(settings)
        distributed.wait()  # until all have read the settings there were
        if distributed.rank() == 0:
            write_json(self.files.settings, settings)
        trained, held = split_held_out(used, self.held_out, self.seed)
        if held:
            display.say(f"Held out: {', '.join(used[n].image.name for n in held)}")
        else:
            display.say("No images are held out: no stage ends before its last update.")
        trainer = self._trainer(cohort, trained, held, display)
        self._train(trainer, display)
        if distributed.rank() == 0:
            self._finish(trainer, used, {"trained_on": len(trained), "held_out": len(held)})
        distributed.wait()
        display.say(f"Trained weights: {self.files.model}; about them: {self.files.card}")

    def resume_hint(self) -> str:
        """What the same command would do now."""
        if not self.files.checkpoint.exists():
            return "the same command begins anew, with the images that are aligned already"
        stage, step, *_ = read_checkpoint(self.files.checkpoint)["place"]
        return f"the same command goes on from update {step} of stage {stage + 1}"

    def _settings(self) -> dict[str, Any]:
        """All that decides about the weights, by words a user knows; as JSON gives it back."""
        recipe = {name.replace("_", " "): value for name, value in asdict(self.recipe).items()}
        recipe |= recipe.pop("objective")
        settings = {
            "network": checkpoint.kind_of(self.network),
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

    def _refuse_other(self, settings: dict[str, Any]) -> None:
        """Refuse to go on with what was begun with other settings."""
        if not self.files.checkpoint.exists():
            return
        begun = read_json(self.files.settings)
        if not begun:
            raise InputError(
                f"{self.files.settings} is missing or damaged, so that nobody knows how the "
                "training there was begun: delete that folder to train anew."
            )
        other = [
            name for name, value in settings.items() if name not in begun or begun[name] != value
        ]
        if other:
            raise InputError(
                f"The training in {self.files.work} was begun with other settings "
                f"({', '.join(other)}): give those again to go on with it, or delete that folder "
                "to train anew."
            )

    def _is_done(self) -> bool:
        """Whether the results are there; weights that come from elsewhere are not overwritten."""
        if not self.files.model.exists():
            return False
        ended = False
        if self.files.checkpoint.exists():
            stage, *_ = read_checkpoint(self.files.checkpoint)["place"]
            ended = stage >= len(self.recipe.steps)
        if not ended:
            raise InputError(
                f"{self.files.model} exists already, and the training in {self.files.work} has "
                "not come to its end: delete the file, or give another name with -o."
            )
        return self.files.are_complete()

    def _align(self, display: TrainingDisplay) -> tuple[list[Brain], Cohort]:
        """Align all images, and tell how that goes."""
        aligner = Aligner(self.template, min(self.network.spacings), self.files.aligned)

        def say(done: int, message: str) -> None:
            display.at("Aligning images", done, len(self.brains))
            if message:
                display.say(message)

        kept = sum(aligner.cache_file(brain).exists() for brain in self.brains)
        display.say(f"{len(self.brains)} images, {kept} of them aligned by an earlier run")
        check_skull_stripped(self.brains, aligner)
        if distributed.size() > 1:
            # Each process aligns some; then all find all of them.
            for brain in self.brains[distributed.rank() :: distributed.size()]:
                with suppress(Exception):  # it is said when it is tried again
                    aligner(brain)
            distributed.wait()
        return align_all(self.brains, aligner, say)

    def _trainer(
        self, cohort: Cohort, trained: list[int], held: list[int], display: TrainingDisplay
    ) -> Trainer:
        """Training on the template and some of the images, judged by the others."""
        spacings = self.network.spacings
        levels = [cohort.coarser(spacing).to(self.device) for spacing in spacings]
        # The template comes first in the cohort.
        members = [level.subset([0, *(n + 1 for n in trained)]) for level in levels]
        judges = [level.subset([n + 1 for n in held]) for level in levels]
        augmentation = Augmentation()

        def draw(stage: int, generator: torch.Generator):
            display.at(stage_title(stage, spacings), trainer.step, self.recipe.steps[stage])
            return members[stage].random_pair(augmentation, generator)

        def judge(stage: int):
            return list(judges[stage].all_pairs())

        self.network.to(self.device)
        trainer = Trainer(
            self.network,
            self.recipe,
            draw,
            judge if held else None,
            self.seed,
            fresh=self.start_from is None,
        )
        return trainer

    def _train(self, trainer: Trainer, display: TrainingDisplay) -> None:
        """Train, and keep the curves up to date."""

        def keep_curves() -> None:
            table, picture = self.files.table, self.files.picture
            write_curves(table, picture, trainer.records, self.network.spacings)

        def report(record: Record) -> None:
            display.record(record, self.network.spacings, self.recipe.steps)
            if distributed.rank() == 0:
                keep_curves()

        if self.files.checkpoint.exists():
            display.say(f"Goes on from {self.files.checkpoint}")
        trainer.run(report, self.files.checkpoint)
        if distributed.rank() == 0:
            keep_curves()

    def _finish(self, trainer: Trainer, used: list[Brain], images: dict[str, int]) -> None:
        """Write the weights and what is to be known about them."""
        checkpoint.save(self.network, self.files.model)
        _, checksum = checkpoint.load(self.files.model)
        card = {
            "name": self.files.model.stem,
            "sha256": checksum,
            "network": checkpoint.kind_of(self.network),
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
