"""All cases: importing this module fills the table."""

import oracle_applications  # noqa: F401
import oracle_chains  # noqa: F401
import oracle_images  # noqa: F401
import oracle_losses  # noqa: F401
import oracle_sequences  # noqa: F401
import oracle_sharing  # noqa: F401
import oracle_subclassed  # noqa: F401
from oracle_cases import CASES

__all__ = ["CASES"]
