"""Training jobs: data, progress, learning curves, model cards."""
