"""Draw the package's layers and the workflows' graphs as SVG files in docs/pictures.

The layers are those that import-linter checks (pyproject.toml). The graphs are those that the
workflow factories return, without the nodes that store files, and without arrows that follow
from the other arrows.
"""

from __future__ import annotations

import itertools
import re
import tempfile
import tomllib
from html import escape
from pathlib import Path

import networkx as nx
from nipype.pipeline.engine.utils import generate_expanded_graph
from niworkflows.engine.workflows import LiterateWorkflow

from bids_fcnreg.bids.atlases import Atlas
from bids_fcnreg.bids.scan import Scan
from bids_fcnreg.bids.templates import Template
from bids_fcnreg.config import DEFAULT_TEMPLATE, Config
from bids_fcnreg.workflows.base import init_longitudinal_wf, init_single_subject_wf

DOCS = Path(__file__).parent
PICTURES = DOCS / "pictures"
SPACE = DEFAULT_TEMPLATE

#: Width and height of a box, and the distance between boxes.
BOX, GAP = (150, 40), (20, 34)
ARROW = 'fill="none" stroke="#6b7280" marker-end="url(#arrow)"'
#: Fill of a box by a part of the name of its workflow, the first that fits.
COLORS = {
    "preprocess": "#dbeafe",
    "segment": "#e9d5ff",
    "base": "#fde68a",
    "changes": "#fde68a",
    "report": "#e5e7eb",
    "register": "#fecaca",
    "propagate": "#bbf7d0",
}


def draw_all() -> None:
    """Write all pictures."""
    draw_layers(PICTURES / "layers.svg")
    with tempfile.TemporaryDirectory() as folder:
        single, longitudinal = build_workflows(Path(folder))
        draw_graph(workflow_graph(single, "outputs"), PICTURES / "workflow.svg")
        draw_graph(
            workflow_graph(longitudinal, "outputs|report"), PICTURES / "workflow_longitudinal.svg"
        )


def draw_layers(path: Path) -> None:
    """Draw the layers of the package, the highest on top."""
    settings = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))
    layers = next(
        contract["layers"]
        for contract in settings["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    )
    rows = [
        [name.strip().removeprefix("bids_fcnreg.") for name in layer.replace(":", "|").split("|")]
        for layer in layers
    ]
    width, height, gap = 540, 26, 5
    shapes = []
    for number, row in enumerate(rows):
        each = (width - gap * (len(row) - 1)) / len(row)
        for place, name in enumerate(row):
            x, y = 10 + place * (each + gap), 10 + number * (height + gap)
            shapes.append(_box(x, y, each, height, "#dbeafe"))
            shapes.append(_text(x + each / 2, y + height / 2 + 4, name))
    _write(path, width + 20, len(rows) * (height + gap) + 15, shapes)


def build_workflows(folder: Path) -> tuple[LiterateWorkflow, LiterateWorkflow]:
    """Build the workflows of one session and of two sessions, on empty files in a folder."""
    for name in ("bids", "out", "work"):
        (folder / name).mkdir()

    def file(name: str) -> Path:
        path = folder / "bids" / name
        path.touch()
        return path

    config = Config(
        bids_dir=folder / "bids",
        output_dir=folder / "out",
        work_dir=folder / "work",
        device="cpu",
        nprocs=2,
        omp_nthreads=2,
    )
    template = Template(SPACE, None, None, file("t1w.nii.gz"), file("mask.nii.gz"), builtin=True)
    atlases = {SPACE: [Atlas("tissue", file("tissue.nii.gz"), ((1, "CSF"), (2, "GM")))]}
    scan = Scan("01", None, (file("sub-01_T1w.nii.gz"),), (file("sub-01_roi.nii.gz"),))
    sessions = [Scan("01", x, (file(f"sub-01_ses-{x}_T1w.nii.gz"),)) for x in ("1", "2")]
    return (
        init_single_subject_wf(config, scan, [template], atlases),
        init_longitudinal_wf(config, sessions, [template], atlases),
    )


def workflow_graph(workflow: LiterateWorkflow, omit: str) -> nx.DiGraph:
    """Nodes that compute something, outside of the inner workflows whose names match `omit`."""
    flat = generate_expanded_graph(workflow._create_flat_graph())
    graph = nx.DiGraph()
    for node in flat.nodes:
        group, name = node.fullname.split(".")[-2:]
        if group == workflow.name:
            group = name  # a node that is in no inner workflow
        if not name.startswith(("ds_", "each_", "all_")) and not re.search(omit, group):
            fill = next((COLORS[key] for key in COLORS if key in group), "white")
            session = group.split("_")[3] if group.startswith("sub_01_ses_") else None
            label = name.replace(SPACE, "TPL") + (f" (ses-{session})" if session else "")
            interface = type(node.interface).__name__
            graph.add_node(node.fullname, label=label, interface=interface, fill=fill)
    for source in list(graph):
        start = next(node for node in flat.nodes if node.fullname == source)
        for target in nx.descendants(flat, start):
            if target.fullname in graph:
                graph.add_edge(source, target.fullname)
    reduced = nx.transitive_reduction(graph)
    reduced.add_nodes_from(graph.nodes(data=True))
    return reduced


def draw_graph(graph: nx.DiGraph, path: Path) -> None:
    """Draw a graph from top to bottom: each node below all that it waits for."""
    chains, rows = _layout(graph)
    width = max(len(row) for row in rows) * (BOX[0] + GAP[0])
    corner = {}
    for number, row in enumerate(rows):
        step = width / len(row)
        for place, name in enumerate(row):
            corner[name] = step * (place + 0.5) + GAP[0] / 2, 10 + number * (BOX[1] + GAP[1])
    shapes = []
    for chain in chains:
        curve = f"M{corner[chain[0]][0]:.0f},{corner[chain[0]][1] + BOX[1]}"
        for source, target in itertools.pairwise(chain):
            (x, y), (u, v) = corner[source], corner[target]
            middle = (y + BOX[1] + v) / 2
            curve += f" C{x:.0f},{middle:.0f} {u:.0f},{middle:.0f} {u:.0f},{v}"
            if target != chain[-1]:
                curve += f" V{v + BOX[1]}"
        shapes.append(f'<path d="{curve}" {ARROW}/>')
    for name, data in graph.nodes(data=True):
        x, y = corner[name]
        shapes.append(_box(x - BOX[0] / 2, y, *BOX, data["fill"]))
        shapes.append(_text(x, y + 17, data["label"]))
        shapes.append(_text(x, y + 32, data["interface"], small=True))
    _write(path, width + GAP[0], len(rows) * (BOX[1] + GAP[1]), shapes)


def _layout(graph: nx.DiGraph) -> tuple[list[list[object]], list[list[object]]]:
    """Chain of points of each edge, one in every row that it crosses, and the rows of points."""
    depth: dict[object, int] = {}
    for name in nx.lexicographical_topological_sort(graph):
        depth[name] = 1 + max((depth[one] for one in graph.predecessors(name)), default=-1)
    chains = []
    for source, target in sorted(graph.edges):
        crossed = range(depth[source] + 1, depth[target])
        between = [(source, target, row) for row in crossed]
        depth |= {point: point[2] for point in between}
        chains.append([source, *between, target])
    fed_by: dict[object, list[object]] = {point: [] for point in depth}
    for source, target in itertools.chain.from_iterable(map(itertools.pairwise, chains)):
        fed_by[target].append(source)
    rows: list[list[object]] = [[] for _ in range(max(depth.values()) + 1)]
    for point in sorted(depth, key=str):
        rows[depth[point]].append(point)
    share: dict[object, float] = {}  # how far to the right a point is
    for row in rows:
        mean = {p: sum(share[q] for q in fed_by[p]) / max(len(fed_by[p]), 1) for p in row}
        row.sort(key=lambda point: (mean[point], str(point)))
        share |= {point: (place + 0.5) / len(row) for place, point in enumerate(row)}
    return chains, rows


def _box(x: float, y: float, width: float, height: float, fill: str) -> str:
    return (
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" rx="5" '
        f'fill="{fill}" stroke="#6b7280"/>'
    )


def _text(x: float, y: float, text: str, small: bool = False) -> str:
    style = 'font-size="11" fill="#4b5563"' if small else 'font-size="13"'
    return f'<text x="{x:.0f}" y="{y:.0f}" {style}>{escape(text)}</text>'


def _write(path: Path, width: float, height: float, shapes: list[str]) -> None:
    """Write an SVG file, unless it has this content already."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" font-family="sans-serif" '
        'text-anchor="middle">',
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#6b7280"/></marker>'
        "</defs>",
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="white"/>',
        *shapes,
        "</svg>\n",
    ]
    content = "\n".join(lines)
    if not path.exists() or path.read_text(encoding="utf-8") != content:
        path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    draw_all()
