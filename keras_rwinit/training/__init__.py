"""Training runs: settings, loop, report, and the devices they use."""
