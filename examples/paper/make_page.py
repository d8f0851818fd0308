"""Writes examples/README.md: fills the marks of page.md with the tables and numbers of the results.

python examples/paper/make_page.py [--check]
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from _experiment import fill_marks
from _tables import page_values

TEMPLATE = Path(__file__).parent / "page.md"
PAGE = Path(__file__).parents[1] / "README.md"
LINE_LENGTH = 118
NO_BREAK = "\0"  # stands for a space in code


def make_page() -> str:
    """Returns the page: the template with its marks filled and its paragraphs wrapped."""
    values = page_values()
    template = TEMPLATE.read_text(encoding="utf-8").strip()
    filled = fill_marks(template, values)
    return "\n\n".join(map(wrap, filled.split("\n\n"))) + "\n"


def wrap(paragraph: str) -> str:
    """Returns a paragraph in lines of limited length; a table stays as it is."""
    if paragraph.startswith("|"):
        return paragraph
    # Code is not broken: a line that begins with "+ W h" would be a list.
    whole = re.sub(r"`[^`]+`", lambda code: code[0].replace(" ", NO_BREAK), paragraph)
    lines = textwrap.fill(whole, LINE_LENGTH, break_long_words=False, break_on_hyphens=False)
    return lines.replace(NO_BREAK, " ")


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the page, or with --check fails if it does not agree with the template and the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only check whether the page is up to date")
    options = parser.parse_args(arguments)
    page = make_page()
    if not options.check:
        PAGE.write_text(page, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page:
        sys.exit(f"{PAGE.name} does not agree with page.md and the tables: run examples/paper/make_page.py")


if __name__ == "__main__":
    main()
