"""Run the BIDS validator over a dataset."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from bids_fcnreg.errors import FcnregError

_VALIDATOR_SECONDS = 600


def validate(bids_dir: Path) -> list[str]:
    """Run the BIDS validator.

    Its errors do not stop a run: real datasets have errors in files that are never read, and the
    others are checked when they are read.

    Returns
    -------
    list of str
        One line per error.

    Raises
    ------
    FcnregError
        If the validator could not be run.
    """
    name = "bids-validator-deno"
    beside = Path(sys.executable).with_name(name)
    command = str(beside) if beside.exists() else shutil.which(name)
    if command is None:
        raise FcnregError(f"{name} is not installed. The dataset was not validated.")
    try:
        done = subprocess.run(
            [command, str(bids_dir), "--format", "json", "--ignoreWarnings"],
            capture_output=True,
            text=True,
            timeout=_VALIDATOR_SECONDS,
        )
        if not done.stdout.strip():
            raise OSError(done.stderr.strip() or f"exit code {done.returncode}")
        issues = json.loads(done.stdout)["issues"]["issues"]
    except subprocess.TimeoutExpired as why:
        raise FcnregError(
            f"{name} took more than {_VALIDATOR_SECONDS} s. The dataset was not validated."
        ) from why
    except (OSError, ValueError, KeyError) as why:
        raise FcnregError(
            f"{name} failed ({_first_line(why)}). The dataset was not validated."
        ) from why
    return [_issue_line(issue) for issue in issues if issue.get("severity") == "error"]


def _issue_line(issue: dict[str, Any]) -> str:
    """Format an error of the validator as one line."""
    line = f" line {issue['line']}" if issue.get("line") else ""
    sub = f" ({issue['subCode']})" if issue.get("subCode") else ""
    message = " ".join(str(issue.get("issueMessage") or "").split())
    location = f"{issue.get('location', 'dataset')}{line}: {issue.get('code', 'error')}{sub}"
    return f"{location} {message}".rstrip()


def _first_line(why: BaseException) -> str:
    """Return the first line of the message of an exception."""
    return (str(why).strip() or type(why).__name__).splitlines()[0]
