"""The graph of a workflow: its nodes, and which of them wait for which."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from nipype import Node, Workflow


def nodes_of(workflow: Workflow) -> Iterator[tuple[str, Node]]:
    """Yield the full name of each node, and the node; also those of workflows within.

    `Workflow.get_node` searches for each name among all workflows of subjects.
    """
    for part in workflow._graph.nodes():
        inner = nodes_of(part) if isinstance(part, Workflow) else [(part.name, part)]
        for name, node in inner:
            yield f"{workflow.name}.{name}", node


class Dependencies:
    """Number of unfinished jobs that each job waits for, in place of Nipype's sparse matrix.

    Nipype sums over its matrix of all pairs of jobs whenever it looks for jobs that can start: the
    time for one of them increases with the number of subjects. This class offers the part of a
    SciPy matrix that Nipype's plugins use.

    Parameters
    ----------
    followers : iterable of iterable of int
        Jobs that wait for each job.

    Examples
    --------
    >>> waiting = Dependencies([[1, 2], [2], []])
    >>> waiting.sum(axis=0)
    array([[0, 1, 2]])
    >>> waiting.release(0)
    >>> waiting.sum(axis=0)
    array([[0, 0, 1]])
    """

    def __init__(self, followers: Iterable[Iterable[int]]) -> None:
        self._followers = [list(jobs) for jobs in followers]
        waiting = [job for jobs in self._followers for job in jobs]
        self._unfinished = np.bincount(waiting, minlength=len(self._followers))

    def sum(self, axis: int = 0) -> np.ndarray:
        """Return the number of unfinished jobs that each job waits for, shape (1, jobs)."""
        assert axis == 0
        return self._unfinished[None]

    def release(self, job: int) -> None:
        """Let the followers of a finished job no longer wait for it."""
        np.subtract.at(self._unfinished, self._followers[job], 1)
        self._followers[job] = []

    def add(self, parts: int, whole: int) -> None:
        """Add jobs that a job is divided into, and that it waits for."""
        self._followers += [[whole] for _ in range(parts)]
        self._unfinished = np.append(self._unfinished, np.zeros(parts, int))
        self._unfinished[whole] += parts
