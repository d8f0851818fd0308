"""What the package knows of Keras: its activations, layers, seeds and gradients."""
