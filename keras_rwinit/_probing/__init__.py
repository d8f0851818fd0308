"""One run of a model, forward and back, observed at every kernel."""
