"""Compare the licenses in docs/licences.md with those in a software bill of materials.

`python docs/check_licences.py FILE`, where FILE is in CycloneDX's JSON format, as `.ci/sbom` makes
it. Libraries that are missing in the page, or that state another license, are printed; the exit
code is then 1.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

PAGE = Path(__file__).with_name("licences.md")

#: Families of licenses, and how packages name them.
FAMILIES = {
    "Apache": "Apache",
    "BSD": "0?BSD",
    "LGPL": "LGPL|Lesser General Public License",
    "MIT": "MIT",
    "MPL": "MPL|Mozilla Public License",
    "PSF": "PSF|Python Software Foundation|PYTHON SOFTWARE FOUNDATION|Python-2|matplotlib|CNRI",
}

#: The package itself, and what makes environments.
NOT_LISTED = {"bids-fcnreg", "pip"}


def normalized(name: str) -> str:
    """Return the name of a package as package indexes write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def listed() -> dict[str, str]:
    """Return the license of each library in the page."""
    page = PAGE.read_text(encoding="utf-8")
    _, direct, indirect = re.split(r"^## Libraries$|^### Their dependencies$", page, flags=re.M)
    rows = re.findall(r"^\| ([\w.-]+)[^|]* \| ([^|]+) \|$", direct, re.M)
    found = {normalized(name): licence for name, licence in rows if name != "library"}
    for licence, names in re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", indirect, re.M):
        found |= {normalized(name): licence for name in names.split(", ") if name != "libraries"}
    return found


def families(texts: Iterable[str]) -> set[str]:
    """Return the families of licenses that are named in texts."""
    joined = "\n".join(texts)
    return {one for one, words in FAMILIES.items() if re.search(rf"\b({words})\b", joined)}


def disagreements(stated: Mapping[str, Iterable[str]]) -> list[str]:
    """Return what is missing in the page, or differs from what libraries state."""
    page, found = listed(), []
    for name, texts in sorted(stated.items()):
        if name not in page:
            found.append(f"{name} is not listed: {', '.join(texts)}")
        elif not _agree(families([page[name]]), families(texts)):
            found.append(f"{name}: {page[name]} is listed, it states {', '.join(texts)}")
    return found


def _agree(one: set[str], other: set[str]) -> bool:
    """Return whether all families of one are among those of the other."""
    return bool(one and other) and (one <= other or other <= one)


def stated_in(path: Path) -> dict[str, list[str]]:
    """Return the licenses of all libraries in a software bill of materials."""
    found = {}
    for one in json.loads(path.read_text(encoding="utf-8"))["components"]:
        texts = []
        for licence in one.get("licenses", ()):
            named = licence.get("license", {})
            texts.append(licence.get("expression") or named.get("id") or named.get("name", ""))
        found[normalized(one["name"])] = texts
    return {name: texts for name, texts in found.items() if name not in NOT_LISTED}


def main() -> int:
    """Print the disagreements."""
    found = disagreements(stated_in(Path(sys.argv[1])))
    print("\n".join(found) or "The licenses are those of docs/licences.md.")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
