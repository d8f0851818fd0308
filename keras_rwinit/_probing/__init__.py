"""Runs a model forward and backward once and measures the signals and gradients at every kernel."""
