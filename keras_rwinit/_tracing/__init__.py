"""What a model does, step by step, and where each kernel stands in it."""
