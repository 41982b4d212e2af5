"""Python threads for work that releases the interpreter lock, as many as PyTorch uses."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel_map(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Call a function for each item; return results in order.

    The function must not call `parallel_map` itself: all calls share the threads.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        return list(map(function, items))
    # A forked process inherits the pool, but not the pool's threads: each process has its own.
    return list(_pool(threads, os.getpid()).map(function, items))


@lru_cache(maxsize=1)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="parallel")


def for_both(function: Callable[..., Result], *pairs: tuple[object, object]) -> list[Result]:
    """Call a function with the first, and with the second, of each pair of arguments, at once."""
    if torch.get_num_threads() == 1:
        return list(map(function, *pairs))
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(function, *pairs))
