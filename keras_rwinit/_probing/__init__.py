"""Runs a model forward and back once and measures the signals and gradients at every kernel."""
