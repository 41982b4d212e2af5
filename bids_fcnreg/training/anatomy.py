"""Train the anatomy network on simulated images.

    python -m bids_fcnreg.training.anatomy LABEL_MAPS OUTPUT [--steps N] [--weights FILE]

LABEL_MAPS is a directory of label maps (`bids_fcnreg.training.simulation`). OUTPUT receives
checkpoint.pt, from which the same command resumes, anatomy.safetensors (the moving average of the
weights), anatomy.json (their model card) and learning_curve.tsv.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bids_fcnreg.atomic import replacing, write_bytes
from bids_fcnreg.fcn.nets.anatomy import AnatomyFCN, normalize_intensities, segmentation_loss
from bids_fcnreg.fcn.nets.checkpoint import load, save
from bids_fcnreg.training.model_card import describe_hardware, describe_software
from bids_fcnreg.training.simulation import LabelMap, simulate

#: Voxels of structures and of the background in the sample of the loss: one in so many.
STRIDE, BACKGROUND_STRIDE = 2, 12

#: Weight of the past in the moving average of the weights.
AVERAGING = 0.999

#: Steps of linear increase of the learning rate after each start without optimizer state.
WARMUP = 100

#: Steps between two lines of the learning curve.
REPORT_EVERY = 50


@dataclass
class Schedule:
    """Learning rate: a warmup, then a cosine from `peak` to a hundredth of it at `steps`."""

    steps: int
    peak: float
    start: int = 0

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        warmup = min(1.0, (step - self.start + 1) / WARMUP)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))
        return self.peak * warmup * (0.01 + 0.99 * cosine)


def train(
    maps: Path,
    output: Path,
    steps: int = 20_000,
    weights: Path | None = None,
    rate: float = 1.5e-3,
    seed: int = 0,
    save_every: float = 600.0,
) -> None:
    """Train until `steps`, resuming from OUTPUT/checkpoint.pt if it exists.

    Parameters
    ----------
    maps : path
        Directory of label maps.
    output : path
        Directory of checkpoint, weights and learning curve.
    steps : int
        Number of updates at which training ends; the learning rate depends on it.
    weights : path, optional
        Continue these weights, after the steps in the JSON file beside them, where there is no
        checkpoint.
    rate : float
        Highest learning rate of Adam.
    seed : int
        Step n sees the same image in every run with the same seed.
    save_every : float
        Seconds between two checkpoints.
    """
    output.mkdir(parents=True, exist_ok=True)
    anatomies = [LabelMap.read(path) for path in sorted(maps.glob("*.nii*"))]
    torch.manual_seed(seed)
    done = json.loads(weights.with_suffix(".json").read_text())["steps"] if weights else 0
    network = load(weights, ["anatomy"])[0].train() if weights else AnatomyFCN()
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # not in stubs
    average = copy.deepcopy(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    schedule = Schedule(steps, rate, done)
    checkpoint = output / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        done, schedule.start = state["step"], state["start"]

    def save_all(step: int) -> None:
        state = {
            "network": network.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "start": schedule.start,
        }
        with replacing(checkpoint) as temporary:
            torch.save(state, temporary)
        save(average, output / "anatomy.safetensors")
        card = {
            "name": "anatomy",
            "network": "anatomy",
            "arguments": network.arguments,
            "data": {"images": "simulated", "label_maps": len(anatomies)},
            "steps": step,
            "recipe": {"steps": steps, "learning_rate": rate, "seed": seed},
            "software": describe_software(),
            "hardware": describe_hardware(torch.device("cpu")),
        }
        write_bytes(output / "anatomy.json", f"{json.dumps(card, indent=2)}\n".encode())

    saved = began = time.monotonic()
    losses: list[float] = []
    for step in range(done, steps):
        rng = np.random.default_rng((seed, step))
        anatomy = anatomies[rng.integers(len(anatomies))]
        loss = _loss(network, *simulate(anatomy, rng), rng)
        optimizer.param_groups[0]["lr"] = schedule.rate(step)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        _update_average(average, network, step - schedule.start)
        losses.append(loss.item())
        if (step + 1) % REPORT_EVERY == 0:
            line = f"{step + 1}\t{np.mean(losses):.4f}\t{time.monotonic() - began:.0f}"
            with (output / "learning_curve.tsv").open("a") as stream:
                stream.write(line + "\n")
            print(line, flush=True)
            losses.clear()
        if time.monotonic() - saved > save_every:
            save_all(step + 1)
            saved = time.monotonic()
    save_all(steps)


def _loss(
    network: AnatomyFCN, image: np.ndarray, channels: np.ndarray, rng: np.random.Generator
) -> Tensor:
    """Compute the loss on a sample of the voxels of structures and background."""
    target = torch.from_numpy(channels).flatten().long()
    voxels = torch.cat(
        [
            part.nonzero()[int(rng.integers(stride)) :: stride, 0]
            for part, stride in ((target > 0, STRIDE), (target == 0, BACKGROUND_STRIDE))
        ]
    )
    target = target[voxels]
    weight = torch.where(target > 0, float(STRIDE), float(BACKGROUND_STRIDE))
    logits = network(normalize_intensities(torch.from_numpy(image)[None, None]), voxels)
    return segmentation_loss(logits, target, weight)


@torch.no_grad()
def _update_average(average: AnatomyFCN, network: AnatomyFCN, step: int) -> None:
    """Move the average of the weights towards the current ones, faster at the start."""
    past = min(AVERAGING, (step + 1) / (step + 10))
    for mean, current in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(current, 1 - past)


def main() -> None:
    """Run `train` with the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("maps", type=Path, help="directory of label maps")
    parser.add_argument("output", type=Path, help="directory of checkpoint and weights")
    parser.add_argument("--steps", type=int, default=20_000, help="updates (default: %(default)s)")
    parser.add_argument("--weights", type=Path, help="continue these weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train(options.maps, options.output, options.steps, options.weights, seed=options.seed)


if __name__ == "__main__":
    main()
