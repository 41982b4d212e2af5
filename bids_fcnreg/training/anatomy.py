"""Train the anatomy network on simulated images.

    python -m bids_fcnreg.training.anatomy LABEL_MAPS OUTPUT [--steps N] [--minutes M]
        [--weights FILE] [--device cuda]

LABEL_MAPS is a directory of label maps (`bids_fcnreg.training.simulation`). OUTPUT receives
checkpoint.pt, from which the same command resumes, anatomy.safetensors (the moving average of the
weights, in half precision), anatomy.json (their model card) and learning_curve.tsv.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bids_fcnreg.atomic import replacing, write_bytes
from bids_fcnreg.fcn.device import resolve_device
from bids_fcnreg.fcn.nets.anatomy import AnatomyFCN, normalize_intensities, segmentation_loss
from bids_fcnreg.fcn.nets.checkpoint import load, save
from bids_fcnreg.fcn.parallel import parallel_map
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
    """Learning rate: a warmup, then a cosine from `peak` to a hundredth of it at the end.

    The end is after `steps` updates or `seconds` of this run, whichever comes first.
    """

    steps: int
    peak: float
    start: int = 0
    seconds: float = math.inf

    def progress(self, step: int, elapsed: float) -> float:
        """Return how much of the training is over, 0 to 1 or more."""
        return max(step / self.steps, elapsed / self.seconds)

    def rate(self, step: int, elapsed: float = 0.0) -> float:
        """Return the learning rate of a step, `elapsed` seconds after the start of this run."""
        warmup = min(1.0, (step - self.start + 1) / WARMUP)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, self.progress(step, elapsed))))
        return self.peak * warmup * (0.01 + 0.99 * cosine)


class Example(NamedTuple):
    """A simulated image, and the voxels of it at which the loss is computed.

    Attributes
    ----------
    image : Tensor (1, 1, i, j, k)
        Normalized intensities.
    voxels, target : Tensor (n,), int64
        Flat indices of a sample of the voxels, and the channel of each.
    weight : Tensor (n,)
        Number of voxels that each of the sample stands for.
    """

    image: Tensor
    voxels: Tensor
    target: Tensor
    weight: Tensor


def draw_example(anatomies: Sequence[LabelMap], seed: int, number: int) -> Example:
    """Draw an example by its number; on one device it is the same in every run with this seed."""
    rng = np.random.default_rng((seed, number))
    anatomy = anatomies[int(rng.integers(len(anatomies)))]
    image, channels = simulate(anatomy, rng)
    channels = channels.flatten()
    voxels = torch.cat(
        [
            part.nonzero()[int(rng.integers(stride)) :: stride, 0]
            for part, stride in ((channels > 0, STRIDE), (channels == 0, BACKGROUND_STRIDE))
        ]
    )
    target = channels[voxels]
    weight = torch.where(target > 0, float(STRIDE), float(BACKGROUND_STRIDE))
    return Example(normalize_intensities(image), voxels, target, weight)


def train(
    maps: Path,
    output: Path,
    steps: int = 20_000,
    weights: Path | None = None,
    rate: float = 1.5e-3,
    seed: int = 0,
    seconds: float = math.inf,
    save_every: float = 600.0,
    device: torch.device | None = None,
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
    seconds : float
        End this run after this time, with the learning rate of the last step.
    save_every : float
        Seconds between two checkpoints.
    device : torch.device, optional
        Where images are simulated and the network is trained; by default the CPU.
    """
    device = device or torch.device("cpu")
    output.mkdir(parents=True, exist_ok=True)
    anatomies = [
        anatomy.to(device) for anatomy in parallel_map(LabelMap.read, sorted(maps.glob("*.nii*")))
    ]
    torch.manual_seed(seed)
    done = json.loads(weights.with_suffix(".json").read_text())["steps"] if weights else 0
    network = load(weights, ["anatomy"])[0].train() if weights else AnatomyFCN()
    network.to(device).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    average = copy.deepcopy(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    schedule = Schedule(steps, rate, done, seconds)
    checkpoint = output / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
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
        save(copy.deepcopy(average).half(), output / "anatomy.safetensors")
        card = {
            "name": "anatomy",
            "network": "anatomy",
            "arguments": network.arguments,
            "data": {"images": "simulated", "label_maps": len(anatomies)},
            "steps": step,
            "recipe": {"steps": steps, "learning_rate": rate, "seed": seed},
            "software": describe_software(),
            "hardware": describe_hardware(device),
        }
        write_bytes(output / "anatomy.json", f"{json.dumps(card, indent=2)}\n".encode())

    torch.backends.cudnn.benchmark = True
    saved = began = time.monotonic()
    losses: list[Tensor] = []
    for step in range(done, steps):
        elapsed = time.monotonic() - began
        if elapsed > seconds:
            break
        example = draw_example(anatomies, seed, step)
        loss = segmentation_loss(
            network(example.image, example.voxels), example.target, example.weight
        )
        optimizer.param_groups[0]["lr"] = schedule.rate(step, elapsed)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        _update_average(average, network, step - schedule.start)
        losses.append(loss.detach())
        if (step + 1) % REPORT_EVERY == 0:
            mean = float(torch.stack(losses).mean())
            line = f"{step + 1}\t{mean:.4f}\t{elapsed:.0f}"
            with (output / "learning_curve.tsv").open("a") as stream:
                stream.write(line + "\n")
            print(line, flush=True)
            losses.clear()
        done = step + 1
        if time.monotonic() - saved > save_every:
            save_all(done)
            saved = time.monotonic()
    save_all(done)


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
    parser.add_argument("--minutes", type=float, default=math.inf, help="end after this time")
    parser.add_argument("--weights", type=Path, help="continue these weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train(
        options.maps,
        options.output,
        options.steps,
        options.weights,
        seed=options.seed,
        seconds=60 * options.minutes,
        device=resolve_device(options.device),
    )


if __name__ == "__main__":
    main()
