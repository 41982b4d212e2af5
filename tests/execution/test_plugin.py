"""Nodes run in processes of their own, so that one that dies takes nothing with it."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from nipype import Function, MapNode, Node, Workflow
from nipype.pipeline.engine.utils import load_resultfile
from rich.console import Console

from bids_fcnreg.config import Config
from bids_fcnreg.errors import InputError
from bids_fcnreg.execution.cluster import read_plugin
from bids_fcnreg.execution.plugin import IsolatedPlugin
from bids_fcnreg.execution.run import make_plugin, run_workflow, visible_gpus


@pytest.fixture(autouse=True)
def _frozen():
    """Nipype collects garbage twice per node; what other tests left takes a second each time."""
    gc.freeze()
    yield
    gc.unfreeze()


def _add_one(value):
    print("adding one")
    return value + 1


def _die(value):
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)
    return value


def _refuse(value):
    from bids_fcnreg.errors import InputError

    raise InputError(f"The value {value} is wrong.")


def _sleep(value):
    import subprocess

    subprocess.run(["sleep", "600"])
    return value


def chain(folder: Path, name: str, *functions) -> Workflow:
    """Nodes one after the other, the first of which gets 1."""
    workflow = Workflow(name, base_dir=str(folder))
    before = None
    for number, function in enumerate(functions):
        node = Node(Function(function=function), f"step{number}")
        if before is None:
            node.inputs.value = 1
            workflow.add_nodes([node])
        else:
            workflow.connect(before, "out", node, "value")
        before = node
    workflow.config["execution"] = {
        "crashdump_dir": str(folder),
        "crashfile_format": "txt",
        "poll_sleep_duration": "0.05",
    }
    return workflow


def plugin(folder: Path, seen: list | None = None) -> IsolatedPlugin:
    made = IsolatedPlugin({"n_procs": 2, "memory_gb": 2}, log_file=folder / "log")
    if seen is not None:
        made._status_callback = lambda node, status: seen.append((node.name, status))
    return made


def test_results_are_passed_between_nodes_and_output_is_logged(tmp_path):
    seen: list[tuple[str, str]] = []
    graph = chain(tmp_path, "fine", _add_one, _add_one).run(plugin=plugin(tmp_path, seen))
    assert {node.name: node.result.outputs.out for node in graph} == {"step0": 2, "step1": 3}
    assert seen == [("step0", "start"), ("step0", "end"), ("step1", "start"), ("step1", "end")]
    assert (tmp_path / "log").read_text().count("adding one") == 2


def test_subjects_are_finished_one_after_another(tmp_path):
    whole = Workflow("all", base_dir=str(tmp_path))
    for name in "abc":
        part = chain(tmp_path, name, _add_one, _add_one)
        whole.add_nodes([part])
    whole.config["execution"] = part.config["execution"]
    seen: list[str] = []
    one_at_a_time = IsolatedPlugin({"n_procs": 1, "memory_gb": 2}, log_file=tmp_path / "log")
    one_at_a_time._status_callback = lambda node, status: seen.append(node.fullname + status)
    whole.run(plugin=one_at_a_time)
    ends = [name.removesuffix("end") for name in seen if name.endswith("end")]
    assert ends == [f"all.{name}.step{step}" for name in "abc" for step in (0, 1)]


def test_no_job_of_many_is_forgotten(tmp_path):
    """More jobs are ready than are considered at a time."""
    whole = Workflow("all", base_dir=str(tmp_path))
    for name in "ab":
        part = Workflow(name)
        for number in range(15):
            node = Node(Function(function=_add_one), f"step{number}")
            node.inputs.value = number
            part.add_nodes([node])
        whole.add_nodes([part])
    whole.config["execution"] = {"crashdump_dir": str(tmp_path), "poll_sleep_duration": "0"}
    one_at_a_time = IsolatedPlugin({"n_procs": 1, "memory_gb": 2}, log_file=tmp_path / "log")
    graph = whole.run(plugin=one_at_a_time)
    assert sorted(node.result.outputs.out for node in graph) == sorted([*range(1, 16)] * 2)


def test_what_the_rest_waits_for_longest_is_first(tmp_path):
    """The long node has a predecessor; both come before a short one that is ready as early."""
    whole, part = Workflow("all", base_dir=str(tmp_path)), Workflow("subject")
    nodes = {}
    for name, seconds in (("short", 3), ("early", 1), ("long", 9)):
        nodes[name] = Node(Function(function=_add_one), name)
        nodes[name].expected_seconds = seconds
        nodes[name].inputs.value = 1
    part.add_nodes([nodes["short"]])
    part.connect(nodes["early"], "out", nodes["long"], "value")
    whole.add_nodes([part])
    whole.config["execution"] = {"crashdump_dir": str(tmp_path), "poll_sleep_duration": "0.05"}
    seen: list[str] = []
    one_at_a_time = IsolatedPlugin({"n_procs": 1, "memory_gb": 2}, log_file=tmp_path / "log")
    one_at_a_time._status_callback = lambda node, status: seen.append(f"{node.name} {status}")
    whole.run(plugin=one_at_a_time)
    assert [one for one in seen if one.endswith("end")] == ["early end", "long end", "short end"]


def test_rerun_reuses_finished_nodes(tmp_path):
    chain(tmp_path, "fine", _add_one, _add_one).run(plugin=plugin(tmp_path))
    seen: list[tuple[str, str]] = []
    chain(tmp_path, "fine", _add_one, _add_one).run(plugin=plugin(tmp_path, seen))
    assert seen == [("step0", "end"), ("step1", "end")]


@pytest.mark.parametrize(
    ("culprit", "words"),
    [
        (_die, "was killed, most likely out of memory"),
        (_refuse, "bids_fcnreg.errors.InputError: The value 2 is wrong."),
    ],
)
def test_failed_or_killed_node_stops_only_dependent_nodes(tmp_path, culprit, words):
    both = Workflow("both", base_dir=str(tmp_path))
    bad = chain(tmp_path, "bad", _add_one, culprit, _add_one)
    both.add_nodes([bad, chain(tmp_path, "good", _add_one, _add_one, _add_one)])
    both.config["execution"] = bad.config["execution"]
    seen: list[tuple[str, str]] = []
    runner = plugin(tmp_path)
    runner._status_callback = lambda node, status: seen.append((node.fullname, status))
    with pytest.raises(RuntimeError):
        both.run(plugin=runner)
    assert ("both.good.step2", "end") in seen
    assert ("both.bad.step1", "exception") in seen
    assert not any(name == "both.bad.step2" for name, _ in seen)
    (crash,) = tmp_path.glob("crash-*.txt")
    assert crash.read_text().startswith("Node: both.bad.step1\n")
    assert words in crash.read_text()


def _double(value):
    if value > 2:
        raise ValueError(f"{value} is too large.")
    return 2 * value


@pytest.mark.parametrize(("values", "expected"), [([1, 2], [3, 5]), ([1], [3]), ([1, 3], None)])
def test_parts_of_a_node_for_several_files(tmp_path, values, expected):
    """What follows waits for all parts, and does not start if one of them fails."""
    whole = Workflow("whole", base_dir=str(tmp_path))
    parts = MapNode(Function(function=_double), iterfield=["value"], name="parts")
    parts.inputs.value = values
    after = MapNode(Function(function=_add_one), iterfield=["value"], name="after")
    whole.connect(parts, "out", after, "value")
    whole.config["execution"] = {"crashdump_dir": str(tmp_path), "poll_sleep_duration": "0.05"}
    seen: list[tuple[str, str]] = []
    runner = plugin(tmp_path, seen)
    if expected is None:
        with pytest.raises(RuntimeError, match="3 is too large"):
            whole.run(plugin=runner)
        assert not any("after" in name for name, _ in seen)
    else:
        graph = whole.run(plugin=runner)
        made = {node.name: node.result.outputs.out for node in graph.nodes}
        assert made["after"] == expected
        assert seen[-1] == ("after", "end")


def test_nodes_that_wait_are_no_concern_of_the_garbage_collection(tmp_path):
    """Nipype collects garbage twice per node: it must not visit the nodes of all subjects."""
    visited = []
    runner = plugin(tmp_path)
    runner._status_callback = lambda node, status: visited.append(
        any(one is node for one in gc.get_objects())
    )
    chain(tmp_path, "some", _add_one, _add_one).run(plugin=runner)
    assert visited == [False] * 4


def test_nodes_can_be_freed_after_the_run(tmp_path):
    """The group level runs one workflow after the other."""
    config = Config(bids_dir=tmp_path, output_dir=tmp_path, work_dir=tmp_path)
    workflow = chain(tmp_path, "one", _add_one)
    _, error = run_workflow(config, workflow, {}, tmp_path / "log", Console(quiet=True))
    assert error is None
    assert gc.get_freeze_count() == 0


def _parent(value):
    import os

    return os.getppid()


def test_workflows_that_end_normally_share_a_fork_server(tmp_path):
    """A failed one leaves none, so that a node that is just being started does not survive it."""
    config = Config(bids_dir=tmp_path, output_dir=tmp_path, work_dir=tmp_path)

    def server_of(name: str, *functions) -> int:
        workflow = chain(tmp_path, name, *functions)
        _, error = run_workflow(config, workflow, {}, tmp_path / "log", Console(quiet=True))
        assert (error is None) == (_refuse not in functions)
        return load_resultfile(tmp_path / name / "step0/result_step0.pklz").outputs.out

    first = server_of("first", _parent)
    assert server_of("second", _parent) == first
    assert server_of("third", _parent, _refuse) == first
    assert server_of("fourth", _parent) != first


def test_stop_terminates_nodes_and_their_child_processes(tmp_path):
    runner = plugin(tmp_path)
    groups: list[int] = []

    def interrupt(_number, _frame):
        groups[:] = [process.pid for process, _ in runner._task_obj.values()]
        signal.alarm(1)  # again: the node is still starting, or a callback swallows the error
        if groups and group_members(groups[0]) == 2:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.alarm(1)
        with pytest.raises(KeyboardInterrupt):
            chain(tmp_path, "long", _sleep).run(plugin=runner)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert group_members(groups[0]) == 2
    runner.stop()
    assert wait_until(lambda: group_members(groups[0]) == 0)


def wait_until(condition, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def _visible(use_gpu):
    import os
    import time

    time.sleep(1)
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def test_each_gpu_node_sees_a_free_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert visible_gpus() == ("3", "5")
    both = Workflow("both", base_dir=str(tmp_path))
    for name, use_gpu in [("a", True), ("b", True), ("c", True), ("d", False)]:
        node = Node(Function(function=_visible), name)
        node.inputs.use_gpu = use_gpu
        both.add_nodes([node])
    both.config["execution"] = {"poll_sleep_duration": "0.05"}
    runner = IsolatedPlugin(
        {"n_procs": 4, "memory_gb": 2, "n_gpu_procs": 2}, tmp_path / "log", visible_gpus()
    )
    seen = {node.name: node.result.outputs.out for node in both.run(plugin=runner).nodes}
    assert sorted([seen["a"], seen["b"]]) == ["3", "5"]
    assert seen["c"] in ("3", "5")
    assert seen["d"] not in ("3", "5")


def group_members(group: int) -> int:
    """Number of living processes of a process group."""
    count = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        count += fields[0] != "Z" and int(fields[2]) == group
    return count


@pytest.mark.parametrize(
    "text",
    [
        "plugin: Nonsense\n",
        "plugin_args: {}\n",
        "[]\n",
        "a: b: c\n",
        "plugin: Linear\nplugin_args: 3\n",
        "plugin: Linear\nplugin_args: [1]\n",
        "plugin: MultiProc\nplugin_args: {n_procs: x}\n",
        "plugin: MultiProc\nplugin_args: {n_procs: -1}\n",
        "plugin: SLURM\nplugin_args: {sbatch_args: 5}\n",
        "plugin: IPython\n",
    ],
)
def test_invalid_plugin_file_is_refused(tmp_path, text):
    path = tmp_path / "plugin.yaml"
    path.write_text(text)
    config = Config(bids_dir=tmp_path, output_dir=tmp_path, plugin_file=path)
    with pytest.raises(InputError, match=r"plugin\.yaml"):
        make_plugin(config, tmp_path / "log", print)


def test_cluster_without_submission_command_is_refused(tmp_path, monkeypatch):
    path, commands = tmp_path / "plugin.yaml", tmp_path / "bin"
    path.write_text("plugin: SLURM\n")
    commands.mkdir()
    monkeypatch.setenv("PATH", str(commands))  # SLURM may be installed on this machine
    with pytest.raises(InputError, match="needs the command sbatch"):
        read_plugin(path, tmp_path)
    (commands / "sbatch").touch(0o755)
    assert type(read_plugin(path, tmp_path)).__name__ == "SLURMPlugin"
    for name in ("my work", "a;touch b", "$(c)"):
        with pytest.raises(InputError, match="Choose one of letters"):
            read_plugin(path, tmp_path / name)


def test_nipype_plugin_receives_its_arguments(tmp_path):
    path = tmp_path / "plugin.yaml"
    path.write_text("plugin: MultiProc\nplugin_args: {n_procs: 1, memory_gb: 1}\n")
    config = Config(bids_dir=tmp_path, output_dir=tmp_path, plugin_file=path)
    seen = []
    made = make_plugin(config, tmp_path / "log", lambda node, status: seen.append(status))
    chain(tmp_path, "theirs", _add_one).run(plugin=made)
    assert made.processors == 1
    assert seen == ["start", "end"]


@pytest.mark.parametrize(("low_mem", "at_once"), [(False, 8), (True, 1)])
def test_low_mem_runs_one_step_at_a_time(tmp_path, low_mem, at_once):
    limits = {"nprocs": 8, "omp_nthreads": 4, "low_mem": low_mem}
    config = Config(bids_dir=tmp_path, output_dir=tmp_path, **limits)
    assert make_plugin(config, tmp_path / "log", print).processors == at_once


def test_directory_named_like_the_package_is_not_imported(tmp_path):
    """As where the current folder holds a clone of the repository."""
    (tmp_path / "here" / "bids_fcnreg").mkdir(parents=True)
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing\n"
        "from bids_fcnreg.execution.fork_server import start_server\n"
        "def load():\n"
        "    import bids_fcnreg\n"
        "    print('version', bids_fcnreg.__version__)\n"
        "if __name__ == '__main__':\n"
        "    start_server()\n"
        "    process = multiprocessing.get_context('forkserver').Process(target=load)\n"
        "    process.start()\n"
        "    process.join()\n"
    )
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path / "here", capture_output=True, text=True
    )
    assert "version" in done.stdout, done.stderr
