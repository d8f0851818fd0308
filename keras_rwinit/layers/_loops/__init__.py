"""The loop over a stack of Dense layers, one module per back end."""
