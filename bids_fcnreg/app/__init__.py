"""What a run does, step by step: participant level, group level, and what they share."""
