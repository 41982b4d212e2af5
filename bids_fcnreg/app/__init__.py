"""Steps of a run: participant level, group level, and what they share."""
