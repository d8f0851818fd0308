"""What is shown of a record whose summary is a text: by `print`, and in a notebook."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod

__all__ = ["Summarized"]


class Summarized(ABC):
    """A record that is printed, and shown in a notebook, as its summary."""

    @abstractmethod
    def summary(self) -> str:
        """Returns the record in words."""

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        # Tables are drawn with characters of one width, and lines longer than the cell are not broken.
        return f'<pre style="overflow-x: auto">{html.escape(self.summary())}</pre>'
