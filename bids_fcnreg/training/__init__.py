"""Training of networks: data, progress, learning curves, model cards."""
