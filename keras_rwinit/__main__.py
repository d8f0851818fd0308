"""Runs the command line by `python -m keras_rwinit`."""

from keras_rwinit.cli import main

main()
