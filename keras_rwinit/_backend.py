"""Says which back end Keras misses, in place of the traceback of its own imports."""

from __future__ import annotations

import importlib
import os

__all__ = ["explain_missing_backend"]

# What installs each.
_BACKENDS = {
    "tensorflow": "pip install tensorflow",
    "jax": 'pip install "keras-rwinit[jax]"',
    "torch": 'pip install "keras-rwinit[torch]"',
}


def explain_missing_backend(error: ImportError | ValueError) -> ImportError | None:
    """Returns what to raise in place of an error of Keras's import; None if its back end can be imported.

    Args:
        error: What the import raised.
    """
    # Without the variable, Keras reads its back end from a file of its own.
    missing = (getattr(error, "name", None) or "").partition(".")[0]
    backend = os.environ.get("KERAS_BACKEND") or (missing if missing in _BACKENDS else "")
    if not backend or _is_installed(backend):
        return None
    install = f"{_BACKENDS[backend]}, or " if backend in _BACKENDS else ""
    return ImportError(
        f"Keras cannot import its back end {backend} ({error}): {install}set KERAS_BACKEND to "
        f"{'another' if install else 'one'} of {', '.join(_BACKENDS)}.",
        name=backend,
    )


def _is_installed(backend: str) -> bool:
    try:
        importlib.import_module(backend)
    except ImportError:
        return False
    return True
