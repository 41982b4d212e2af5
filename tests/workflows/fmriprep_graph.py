"""Print the nodes of fMRIPrep's workflow: `fmriprep_graph.py BIDS DERIVATIVES TEMPLATE [OPTION …]`.

The workflow is built with and without the derivatives given to it, and not run. Options are those
of fMRIPrep. TEMPLATE is an image that stands in for the files of TemplateFlow, of which only the
skeleton is there. The output is JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from templateflow import api

#: Templates that fMRIPrep looks for.
TEMPLATES = ("MNI152NLin2009cAsym", "MNI152NLin6Asym", "OASIS30ANTs", "fsaverage")


def main(bids: str, derivatives: str, template: str, *options: str) -> None:
    root = Path(api.TF_LAYOUT.root)
    for directory in root.glob("tpl-*"):
        if directory.name.removeprefix("tpl-") not in TEMPLATES:
            shutil.rmtree(directory)  # indexing all of them takes half a minute
    for path in root.glob("tpl-*/*.nii.gz"):
        if "atlas-" in path.name:
            path.unlink()
        elif path.stat().st_size == 0:
            path.unlink()
            path.symlink_to(template)
    given = {"with": ["--derivatives", f"bids_fcnreg={derivatives}"], "without": []}
    for name, added in given.items():
        result = Path(f"{name}.json").absolute()
        child = os.fork()  # its configuration is global
        if child == 0:
            result.write_text(json.dumps(build(bids, name, [*options, *added])))
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            sys.exit(f"The workflow {name} derivatives was not built.")
    print(json.dumps({name: json.loads(Path(f"{name}.json").read_text()) for name in given}))


def build(bids: str, name: str, options: list[str]) -> dict[str, str]:
    """Return the program (or nothing) of each node by its name."""
    from fmriprep import config
    from fmriprep.cli.parser import parse_args

    arguments = [bids, f"out_{name}", "participant", "-w", f"work_{name}", "--fs-no-reconall"]
    arguments += ["--output-spaces", "MNI152NLin2009cAsym", "--skip-bids-validation", "--notrack"]
    parse_args([*arguments, *options])
    settings = Path(f"{name}.toml")
    config.to_filename(settings)
    config.load(settings)
    from fmriprep.workflows.base import init_fmriprep_wf

    workflow = init_fmriprep_wf()
    nodes = {name: workflow.get_node(name) for name in workflow.list_node_names()}
    return {name: getattr(node.interface, "_cmd", None) or "" for name, node in nodes.items()}


if __name__ == "__main__":
    main(*sys.argv[1:])
