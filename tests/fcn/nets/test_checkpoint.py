"""Weights on disk: the same network comes back, or none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.nets import checkpoint
from bids_fcnreg.fcn.nets.li_fan_2017 import FCN2017
from bids_fcnreg.fcn.nets.mdregnet import DiffeomorphicFCN


@pytest.fixture(params=["diffeomorphic", "2017"])
def network(request):
    torch.manual_seed(0)
    if request.param == "2017":
        return FCN2017((4, 8), spacing=1.0)
    return DiffeomorphicFCN(spacings=(2.0, 1.0), passes=(1, 2), widths=(8, 16))


def test_saved_network_is_restored(network, make_random_pair, tmp_path):
    checkpoint.save(network, tmp_path / "m.safetensors")
    loaded, checksum = checkpoint.load(tmp_path / "m.safetensors")
    assert type(loaded) is type(network)
    assert loaded.arguments == network.arguments
    pair = make_random_pair((17, 22, 13))
    network.to(memory_format=torch.channels_last_3d)  # as it is loaded
    one, other = network.deform(pair), loaded.deform(pair)
    assert torch.equal(one.to_moving, other.to_moving)
    assert torch.equal(one.to_fixed, other.to_fixed)
    checkpoint.save(loaded, tmp_path / "again.safetensors")
    assert checkpoint.load(tmp_path / "again.safetensors")[1] == checksum


def test_checksum_depends_on_arguments(tmp_path):
    """Equal weights that are used in another way give other results."""
    path = tmp_path / "m.safetensors"
    network = DiffeomorphicFCN(spacings=(2.0, 1.0), passes=(1, 2), widths=(8, 16))
    found = set()
    for passes, rate in (((1, 2), 0.2), ((2, 2), 0.2), ((2, 2), 0.1)):
        network.passes, network.divergence_rate = passes, rate
        checkpoint.save(network, path)
        found.add(checkpoint.load(path)[1])
    assert len(found) == 3


def test_changed_byte_fails_the_checksum(network, tmp_path):
    path = tmp_path / "m.safetensors"
    checkpoint.save(network, path)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        checkpoint.load(path)


def test_other_files_are_rejected(tmp_path):
    text, foreign, cut = (tmp_path / f"{name}.safetensors" for name in ("text", "foreign", "cut"))
    text.write_text("no weights")
    save_file({"x": torch.zeros(3)}, foreign)
    checkpoint.save(FCN2017((4, 8)), cut)
    cut.write_bytes(cut.read_bytes()[:-50])
    for path in (text, cut, tmp_path / "missing.safetensors"):
        with pytest.raises(InputError, match="is not a readable"):
            checkpoint.load(path)
    with pytest.raises(InputError, match="was not written by `fcnreg train`"):
        checkpoint.load(foreign)


def _changed(path: Path, facts: str) -> Path:
    """A whole file, its checksum right, that says something else of its weights."""
    with safe_open(path, framework="pt") as stream:
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    if "SHA" in facts:
        facts = facts.replace("SHA", checkpoint._checksum(tensors, json.loads(facts)))
    save_file(tensors, path, metadata={"fcnreg": facts})
    return path


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ("no JSON", "was not written by `fcnreg train`"),
        ("[1]", "was not written by `fcnreg train`"),
        ("[" * 100_000, "was not written by `fcnreg train`"),
        ('{"network": "2017"}', "was not written by `fcnreg train`"),
        (
            '{"network": ["2017"], "arguments": {}, "sha256": "SHA"}',
            "was not written by `fcnreg train`",
        ),
        (
            '{"network": "other", "arguments": {}, "sha256": "SHA"}',
            "was not written by `fcnreg train`",
        ),
        ('{"network": "2017", "arguments": {"widths": [4, 8]}, "sha256": 1}', "is damaged"),
        ('{"network": "2017", "arguments": {}, "sha256": "SHA"}', "does not match the network"),
        (
            '{"network": "2017", "arguments": {"widths": [4, 9]}, "sha256": "SHA"}',
            "does not match the network",
        ),
        (
            '{"network": "2017", "arguments": {"widths": [4, 100000000]}, "sha256": "SHA"}',
            "does not match the network",
        ),
        (
            '{"network": "2017", "arguments": {"widths": "x", "y": 1}, "sha256": "SHA"}',
            "does not match the network",
        ),
        (
            '{"network": "2017", "arguments": {"widths": [4, 8], "z": 1}, "sha256": "SHA"}',
            "does not match the network",
        ),
        (
            '{"network": "diffeomorphic", "arguments": {"widths": [4, 8]}, "sha256": "SHA"}',
            "does not match the network",
        ),
    ],
)
def test_a_file_that_says_something_else_is_refused(tmp_path, facts, sentence):
    path = tmp_path / "m.safetensors"
    checkpoint.save(FCN2017((4, 8)), path)
    assert checkpoint.load(path)
    with pytest.raises(InputError, match=sentence) as caught:
        checkpoint.load(_changed(path, facts))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
