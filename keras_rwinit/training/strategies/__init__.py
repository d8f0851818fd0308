"""Where a training run computes: one device, or several."""
