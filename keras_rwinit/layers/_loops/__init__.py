"""The loop over a stack of Dense layers, one module a back end."""
