"""Where a registration goes when the memory of a GPU does not suffice."""

from __future__ import annotations

import warnings

import pytest
import torch

from bids_fcnreg.fcn.out_of_memory import with_fallback

GPU = torch.device("cuda")


class Scarce:
    """Computes on the CPU, and on a GPU after so many failures."""

    def __init__(self, failures: int) -> None:
        self.failures, self.places = failures, []

    def __call__(self, place: torch.device) -> str:
        self.places.append(place.type)
        if place.type == "cuda" and len(self.places) <= self.failures:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return place.type


def test_no_fallback_with_enough_memory():
    compute = Scarce(0)
    assert with_fallback(compute, GPU) == "cuda"
    assert compute.places == ["cuda"]


def test_a_second_try_may_do():
    compute = Scarce(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert with_fallback(compute, GPU) == "cuda"
    assert compute.places == ["cuda", "cuda"]


def test_fallback_to_cpu_warns():
    compute = Scarce(5)
    with pytest.warns(UserWarning, match="cuda is out of memory"):
        assert with_fallback(compute, GPU) == "cpu"
    assert compute.places == ["cuda", "cuda", "cpu"]


def test_other_errors_are_errors():
    def compute(place: torch.device) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        with_fallback(compute, GPU)
