"""Processes that `torchrun` starts."""

import subprocess
import sys

# What trains in a group of two processes; prints the native threads before and after its end.
TRAINING = """
from pathlib import Path
import torch
from bids_fcnreg.fcn import distributed

def threads():
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]

with distributed.process_group(torch.device("cpu")):
    weight = torch.full((3,), 1.0 + distributed.rank(), requires_grad=True)
    distributed.broadcast_tensor(weight.data)
    optimiser = torch.optim.Adam([weight])  # imports much of PyTorch
    (weight.sum() * (distributed.rank() + 1)).backward()
    total = distributed.all_reduce(weight.grad)
    optimiser.step()
    during = sum("gloo" in name for name in threads())
after = sum("gloo" in name for name in threads())
line = f"weights {weight.round().tolist()}, gradient {total.tolist()}, {during > 0} {after}"
print(line + chr(10), end="", flush=True)
"""


def test_a_group_ends_with_all_its_threads(tmp_path):
    """Threads of a group that outlive it abort the process at its exit, now and then."""
    script = tmp_path / "training.py"
    script.write_text(TRAINING)
    group = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*group, str(script)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    expected = "weights [1.0, 1.0, 1.0], gradient [3.0, 3.0, 3.0], True 0"
    assert sorted(done.stdout.splitlines()) == [expected] * 2
