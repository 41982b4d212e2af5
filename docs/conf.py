"""Settings of Sphinx for this site; `make docs` builds it, without the internet."""

import contextlib
import io
import os

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util.docutils import SphinxDirective

import bids_fcnreg
from bids_fcnreg.cli import fcnreg, options

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
    """What a command, for instance ``fcnreg apply``, prints when it is asked for ``--help``."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self):
        command, *words = self.arguments[0].split()
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            COMMANDS[command]().parse_args([*words, "--help"])
        return [nodes.literal_block(text=printed.getvalue(), language="none")]


def add_mathml(translator, node):
    """Write a formula as MathML."""
    translator.body.append(tex2mathml(node.astext(), isinstance(node, nodes.math_block)))
    raise nodes.SkipNode


def escape_stars(app, what, name, obj, options, lines):
    """Take the star of a shape such as (1, 3, *places) for a star, not for emphasis."""
    lines[:] = [line.replace(", *", r", \*") for line in lines]


def setup(app):
    """Add what is above to Sphinx."""
    os.environ |= {"COLUMNS": "90", "NO_COLOR": "1"}  # for argparse
    app.connect("autodoc-process-docstring", escape_stars, priority=400)  # before numpydoc
    app.add_directive("command-help", CommandHelp)
    app.add_html_math_renderer("mathml", (add_mathml, None), (add_mathml, None))
