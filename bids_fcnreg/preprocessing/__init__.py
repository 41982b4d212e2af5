"""Brain masks, bias field, intensity scale, averages of runs, lesion masks."""
