"""Quality control: metrics, verdict, and left-right flips."""
