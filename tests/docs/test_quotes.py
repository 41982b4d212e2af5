"""The messages that the docs quote are those that the program prints.

The docs quote messages in two ways: in *italics* (beginning with a capital letter, ``warning``,
``--`` or ``…``), and as code of at least four plain words. In a quote, … stands for anything;
words in capitals and values stand for what the program fills in.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "bids_fcnreg"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

#: Stands for what is filled into a template.
HOLE = "\0"
#: Words that a placeholder takes in at most, unless these are a message of their own.
_WORDS_OF_VALUE = 4
#: Least share of the words of a quote that are the program's own.
_LEAST_SHARE = 0.5

_ITALICS = re.compile(r"(?<![\\*\w])\*(?![*\s])((?:\\.|[^*\\])+?)(?<!\s)\*(?![*\w])", re.DOTALL)
_MESSAGE = re.compile(r"[A-Z]|warning:|--|…")
#: Begins a text in a traceback, of which the rest is reported.
_NAME_OF_ERROR = re.compile(r"^(?:\w+\.)*\w+Error: ")


@dataclass(frozen=True)
class Token:
    """A word, a sign or a hole; ``apart`` if a space is before it."""

    text: str
    apart: bool


def tokens(text: str) -> tuple[Token, ...]:
    """Words and signs of a text."""
    found = re.finditer(r"(\s*)([^\W_]+|[^\w\s]|_|\0)", text.replace("\0", " \0 ").strip())
    return tuple(Token(one[2].lower(), bool(one[1])) for one in found)


def quotes(page: str) -> list[str]:
    """Messages quoted in a page of Markdown."""
    prose = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    code = re.findall(r"(?<!`)`([^`\n]+)`", prose)
    found = [one for one in code if re.fullmatch(r"[A-Za-z]+( [A-Za-z]+){3,}(: …)?", one)]
    without_stars = re.sub(r"`[^`\n]*`", lambda one: "" if "*" in one[0] else one[0], prose)
    for block in re.split(r"\n\s*\n", without_stars):
        found += [
            one for one in _ITALICS.findall(block) if _MESSAGE.match(one) and "](" not in one
        ]
    return [" ".join(one.replace("\\", "").replace("`", "").split()) for one in found]


def templates(folder: Path = PACKAGE) -> frozenset[str]:
    """Texts in the Python source and the pages of a folder, holes for what is filled in."""
    found: set[str] = set()
    for path in folder.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            kinds = ast.Constant | ast.JoinedStr | ast.BinOp
            if isinstance(node, kinds) and id(node) not in docstrings:
                found.add(_NAME_OF_ERROR.sub("", _text(node)))
    for path in (*folder.rglob("*.yml"), *folder.rglob("*.j2")):
        for line in path.read_text(encoding="utf-8").splitlines():
            found |= {part.strip() for part in re.split(r"<[^>]*>|^\s*-?\s*\w+:", line)}
    return frozenset(text.replace("`", "") for text in found if re.search(r"\w", text))


def _text(node: ast.expr) -> str:
    """Text of an expression, as far as it is constant."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return HOLE


class Source:
    """All texts that a program can print.

    Parameters
    ----------
    texts : iterable of str
        What `templates` finds.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._templates = [tokens(text) for text in texts]
        self._words = [_words(template) for template in self._templates]
        self._distinct = [frozenset(words) for words in self._words]
        self._known: dict[tuple[Token, ...], int] = {}

    def prints(self, quote: str) -> bool:
        """Whether the program can print a quote."""
        return self._own_words(tokens(quote)) > 0

    def _own_words(self, quote: tuple[Token, ...]) -> int:
        """Words of a quote that are the program's own; 0 if it cannot print it."""
        if quote not in self._known:
            self._known[quote] = 0  # while it is looked for inside of itself
            wanted = _words(quote)
            least = max(_LEAST_SHARE * len(wanted), 1)
            counts = (
                self._aligned(quote, template)
                for template in self._fitting(quote, wanted)
                if _may_have(template, wanted, least)
            )
            self._known[quote] = next((count for count in counts if count >= least), 0)
        return self._known[quote]

    def _fitting(self, quote: tuple[Token, ...], wanted: list[str]) -> list[tuple[Token, ...]]:
        """Templates that may be those of a quote, most common words first."""
        cut, distinct = any(token.text == "…" for token in quote), frozenset(wanted)
        found = []
        for template, words, own in zip(self._templates, self._words, self._distinct, strict=True):
            if cut:
                fits = 4 * len(own & distinct) >= len(distinct) or own < distinct
            else:
                fits = own <= distinct and _in_order(words, wanted)
            if fits and _same_ends(quote, template):
                found.append((len(own & distinct), template))
        found.sort(key=lambda one: -one[0])
        return [template for _, template in found]

    def _aligned(self, quote: tuple[Token, ...], template: tuple[Token, ...]) -> int:
        """Most words that a quote and a template have in common; -1 if it does not fit."""
        rows, columns = len(quote), len(template)
        # best[j][i]: of what follows i in the quote and j in the template.
        best = [[-1] * (rows + 1) for _ in range(columns + 1)]
        for j in range(columns, -1, -1):
            for i in range(rows, -1, -1):
                found = 0 if (i, j) == (rows, columns) else -1
                if i < rows and quote[i].text == "…":
                    found = max(found, best[j][i + 1], best[j + 1][i] if j < columns else -1)
                if j < columns and template[j].text == HOLE:
                    found = max(found, best[j + 1][i], self._filled(quote, i, best[j + 1]))
                elif i < rows and j < columns and quote[i].text == template[j].text:
                    rest = best[j + 1][i + 1]
                    found = max(found, rest + quote[i].text.isalpha() if rest >= 0 else -1)
                best[j][i] = found
        return best[0][0]

    def _filled(self, quote: tuple[Token, ...], start: int, after: Sequence[int]) -> int:
        """Words in common if a hole takes in what follows a place, given those of the rest."""
        words, found = 0, -1
        for end in range(start + 1, len(quote) + 1):
            words += quote[end - 1].apart or end == start + 1
            if after[end] < 0:
                continue
            if words <= _WORDS_OF_VALUE:
                found = max(found, after[end])
            elif _may_be_inner(quote, start, end) and (inner := self._own_words(quote[start:end])):
                found = max(found, after[end] + inner)
        return found


def _may_have(template: tuple[Token, ...], wanted: list[str], least: float) -> bool:
    """Whether a template may have so many words of a quote: it has them, or holes."""
    texts = {token.text for token in template}
    return HOLE in texts or sum(word in texts for word in wanted) >= least


def _may_be_inner(quote: tuple[Token, ...], start: int, end: int) -> bool:
    """Whether a part of a quote is where a message may quote another one."""
    begins = start == 0 or not quote[start - 1].text.isalpha()
    ends = end == len(quote) or not quote[end].text.isalpha()
    return (begins and ends) or not _words(quote[end:])


def _in_order(words: list[str], wanted: list[str]) -> bool:
    """Whether a template's words are among those that are wanted, in this order."""
    remaining = iter(wanted)
    return bool(words) and all(word in remaining for word in words)


def _same_ends(quote: tuple[Token, ...], template: tuple[Token, ...]) -> bool:
    """Whether a quote and a template have the same first and last token, or one stands for any."""
    return all(
        quote[place].text == "…" or template[place].text in (HOLE, quote[place].text)
        for place in (0, -1)
    )


def _words(text: tuple[Token, ...]) -> list[str]:
    return [token.text for token in text if token.text.isalpha()]


@pytest.fixture(scope="module")
def source() -> Source:
    return Source(templates())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_quoted_message_is_in_the_source(source, page):
    wrong = [one for one in quotes(page.read_text(encoding="utf-8")) if not source.prints(one)]
    assert not wrong, "no text in the source prints:\n" + "\n".join(wrong)


def test_the_docs_quote_many_messages():
    assert sum(len(quotes(page.read_text(encoding="utf-8"))) for page in PAGES) > 90


TEXTS = [
    f"The output folder {HOLE} cannot be written ({HOLE}): choose another, or repair it.",
    f"{HOLE} failed: {HOLE}",
    f"{HOLE}: {HOLE}",
    HOLE,
    "The disk was full: make room.",
    f"{HOLE} {HOLE} is not in {HOLE}",
    f"{HOLE}: choose from {HOLE}.",
]


@pytest.mark.parametrize(
    "quote",
    [
        "The output folder /out cannot be written (Permission denied): choose another, or repair "
        "it.",
        "The output folder DIR cannot be written (…): choose another, or repair it.",
        "The output folder DIR cannot be written …",
        "… choose another, or repair it.",
        "sub-01 failed: The disk was full: make room.",
        "Participant 5 is not in /data: choose from 01, 02.",
    ],
)
def test_quotes_of_messages_are_found(quote):
    assert Source(TEXTS).prints(quote)


@pytest.mark.parametrize(
    "quote",
    [
        "The output folder /out cannot be written (Permission denied): choose another or change "
        "its permissions.",
        "The output folder DIR cannot be read …",
        "The output folder DIR cannot be written",
        "sub-01 failed: The disk was full: make place.",
        "sub-01 failed: All other memory of the machine was taken by somebody.",
        "Nobody ever wrote: this sentence.",
    ],
)
def test_quotes_of_other_messages_are_not_found(quote):
    assert not Source(TEXTS).prints(quote)


def test_quotes_are_found_in_pages():
    page = """Some *emphasis*, and *The message FILE \\* is
this `x y`.* and `four plain words here`.
| message | do |\n|---|---|\n| *One: …*, *… two.* | *no* |

```\n*Not this one*\n```
The glob `*/[ses-*` is none; `bids_fcnreg DIR OUT group` neither.
"""
    assert sorted(quotes(page)) == [
        "One: …",
        "The message FILE * is this x y.",
        "four plain words here",
        "… two.",
    ]
