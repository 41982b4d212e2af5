"""Linear alignment."""
