"""`python -m keras_rwinit`."""

from .cli import main

main()
