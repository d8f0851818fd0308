"""The commands of `keras-rwinit`, one module each."""
