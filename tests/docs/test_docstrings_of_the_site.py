"""The translation of docstrings into Sphinx's language: what is an equation and what is text."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

EXTENSIONS = Path(__file__).parents[2] / "docs" / "_ext"

DOCSTRING = """Draws.

    a = b, `c`

after it `d`.

| a | `b` |
|---|---|
| 1 | |

Args:
    one: First `e`.

        Second paragraph of `one`.

            x = `y`

    two: Third.

Returns:
    A number

        f(x)

Example:
    >>> draw("`a`")
    |x| is `a`
    | 1 | 2 |

    And |x| is `g`.
"""

TRANSLATED = """Draws.

::

    a = b, `c`

after it ``d``.

.. list-table::
   :header-rows: 1

   * - a
     - ``b``
   * - 1
     -

Args:
    one: First ``e``.

        Second paragraph of ``one``.

        ::

            x = `y`

    two: Third.

Returns:
    A number

    ::

        f(x)

Example:
    >>> draw("`a`")
    |x| is `a`
    | 1 | 2 |

    And \\|x\\| is ``g``.
"""


def test_equations_tables_and_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXTENSIONS))
    extension: Any = importlib.import_module("markdown_docstrings")
    lines = DOCSTRING.splitlines()
    extension.translate(SimpleNamespace(), "function", "keras_rwinit.draw", None, None, lines)
    assert lines == TRANSLATED.splitlines()
