"""Settings of Sphinx for this site; `make docs` builds it, without the internet."""

import contextlib
import io
import os
import sys
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util.docutils import SphinxDirective

import bids_fcnreg
from bids_fcnreg import interfaces
from bids_fcnreg.cli import fcnreg, options

sys.path.insert(0, str(Path(__file__).parent))
from draw_pictures import draw_all
from notebook_cells import write_jupyter

project = "bids_fcnreg"
author = copyright = "The bids_fcnreg developers"
version = release = bids_fcnreg.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
default_role = "py:obj"  # what docstrings write in single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say what everything is
numpydoc_show_class_members = False
html_theme = "furo"
html_title = f"bids_fcnreg {release}"
html_math_renderer = "mathml"  # browsers show it without a script from elsewhere

COMMANDS = {"bids_fcnreg": options.build_parser, "fcnreg": fcnreg.build_parser}


class CommandHelp(SphinxDirective):
    """Show what a command, for instance ``fcnreg apply``, prints with ``--help``."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self):
        command, *arguments = self.arguments[0].split()
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            COMMANDS[command]().parse_args([*arguments, "--help"])
        return [nodes.literal_block(text=printed.getvalue(), language="none")]


class CodeCell(SphinxDirective):
    """Show a code cell of a notebook; tests/docs/test_notebooks.py runs it."""

    has_content = True
    optional_arguments = 1

    def run(self):
        # Lines with ! are of IPython.
        return [nodes.literal_block(text="\n".join(self.content), language="python", force=True)]


class InterfaceHelp(SphinxDirective):
    """Show the inputs and outputs of a Nipype interface."""

    required_arguments = 1

    def run(self):
        printed = getattr(interfaces, self.arguments[0]).help(returnhelp=True)
        specified = printed[printed.index("Inputs::") :].replace("::\n", "\n").strip()
        return [nodes.literal_block(text=specified, language="none")]


def add_mathml(translator, node):
    """Write a formula as MathML."""
    translator.body.append(tex2mathml(node.astext(), isinstance(node, nodes.math_block)))
    raise nodes.SkipNode


def escape_stars(app, what, name, obj, options, lines):
    """Escape the star of a shape such as (1, 3, *places), which is no emphasis."""
    lines[:] = [line.replace(", *", r", \*") for line in lines]


def setup(app):
    """Register the extensions above; write the pictures and notebooks that are generated."""
    draw_all()
    for page in (Path(__file__).parent / "notebooks").glob("*.md"):
        write_jupyter(page)
    os.environ |= {"COLUMNS": "90", "NO_COLOR": "1"}  # for argparse
    app.connect("autodoc-process-docstring", escape_stars, priority=400)  # before numpydoc
    app.add_directive("command-help", CommandHelp)
    app.add_directive("interface-help", InterfaceHelp)
    app.add_directive("code-cell", CodeCell)
    app.add_html_math_renderer("mathml", (add_mathml, None), (add_mathml, None))
