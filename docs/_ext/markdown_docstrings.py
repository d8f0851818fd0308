"""Translates the package's docstrings, which are written in Markdown, into reStructuredText.

They have tables, code in single backticks and, after a blank line, indented by four more spaces than the
text, equations. Code that is the name of something in the reference becomes a link, as does the label in
"equation (label)".
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_SECTIONS = re.compile(
    r"(Args|Attributes|Example|Input shape|Output shape|Raises|References|Returns|Warns|Weights|Yields):$"
)
# Sections of names, whose descriptions are indented too.
_ENTRIES = ("Args:", "Attributes:", "Raises:", "Warns:")
_DIRECTIVES = re.compile(r"^\.\. (?:auto|py:)(?:function|class|exception|data):: (\S+)$", re.MULTILINE)
_TABLE_RULE = re.compile(r"\|(?:-+\|)+")
_EQUATION = re.compile(r"\bequation \((\w+)\)")
_LABELS = re.compile(r"^\$\$ \((\w+)\)$", re.MULTILINE)
_links: dict[str, str] = {}
_equations: set[str] = set()


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the translation, before that of Google's sections."""
    app.connect("builder-inited", _find_links)
    app.connect("autodoc-process-docstring", translate, priority=100)
    return {"parallel_read_safe": True}


def translate(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Rewrites `lines` in place; an event handler of autodoc."""
    del app, obj, options
    if not name.startswith("keras_rwinit"):
        return
    lines[:] = _translate_blocks(lines, name)
    # Google's style has the type of a property before a colon in the first line; the package has none there.
    if what in ("attribute", "property") and lines:
        lines[0] = lines[0].replace(": ", " - ", 1)


def _find_links(app: Sphinx) -> None:
    """Notes what code in backticks stands for: dotted names, and single ones that are no common word.

    The labels of the equations on the page of theory are noted too.
    """
    _equations.update(_LABELS.findall(Path(app.srcdir, "theory.md").read_text(encoding="utf-8")))
    for page in sorted(Path(app.srcdir, "reference").glob("*.md")):
        for path in _DIRECTIVES.findall(page.read_text(encoding="utf-8")):
            parts = path.split(".")
            for start in range(len(parts)):
                code = ".".join(parts[start:])
                # `gain` and `stack` are arguments as well, `gradient_walk` and `DenseStack` are not.
                if "." in code or "_" in code or not code.islower():
                    _links.setdefault(code, path)


def _translate_blocks(lines: list[str], name: str) -> list[str]:
    """Marks indented blocks as literal, and translates the code in all other lines."""
    translated: list[str] = []
    base = 0  # indentation of a section's lines
    extra_indent = 4  # of an equation
    literal = False
    in_doctest = False  # from a prompt to the next blank line, so that what it prints stays as it is
    after_blank = True
    for line in lines:
        text = line.lstrip()
        indent = len(line) - len(text)
        prompt = text.startswith((">>>", "..."))
        in_doctest = bool(text) and (in_doctest or prompt)
        if text.startswith("|") and not (literal or in_doctest):
            translated.extend(_table_row(line, name, is_first=after_blank))
            after_blank = False
            continue
        if not text:
            translated.append(line)
            after_blank = True
            continue
        if _SECTIONS.fullmatch(line):
            base, extra_indent, literal = 4, 8 if line in _ENTRIES else 4, False
        elif indent < base:
            base, extra_indent, literal = 0, 4, False
        if literal and indent < base + extra_indent:
            literal = False
        is_text = prompt or text.startswith("- ")
        if after_blank and not literal and indent >= base + extra_indent and not is_text:
            literal = True
            translated.extend([" " * (base + extra_indent - 4) + "::", ""])
        translated.append(line if literal or in_doctest else _inline(line, name))
        after_blank = False
    return translated


def _table_row(line: str, name: str, *, is_first: bool) -> list[str]:
    """Returns a row of a table as that of a `list-table`, with its head before the first."""
    indent = line[: len(line) - len(line.lstrip())]
    if _TABLE_RULE.fullmatch(line.strip()):
        return []
    cells = [_inline(cell.strip(), name) for cell in line.strip().strip("|").split("|")]
    bullets = ["   * - ", *["     - "] * (len(cells) - 1)]
    row = [f"{indent}{bullet}{cell}".rstrip() for bullet, cell in zip(bullets, cells, strict=True)]
    head = [f"{indent}.. list-table::", f"{indent}   :header-rows: 1", ""]
    return [*head, *row] if is_first else row


def _link_equation(found: re.Match[str]) -> str:
    return f"equation :eq:`{found[1]}`" if found[1] in _equations else found[0]


def _inline(line: str, name: str) -> str:
    """Translates code in backticks, and keeps `|` outside it from being read as a substitution."""
    parts = _CODE.split(line)
    for number, part in enumerate(parts):
        if number % 2:
            target = _links.get(part)
            code = f":py:obj:`{part} <{target}>`" if target and not name.startswith(target) else f"``{part}``"
            # A letter right behind closing backticks would keep them from closing.
            parts[number] = code + ("\\ " if parts[number + 1][:1].isalnum() else "")
        else:
            parts[number] = _EQUATION.sub(_link_equation, part.replace("|", "\\|"))
    return "".join(parts)
