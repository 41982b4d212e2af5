"""Training of the anatomy network on simulated images."""
