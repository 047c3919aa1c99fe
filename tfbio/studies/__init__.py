"""Studies: many runs, as a comparison, sweep, search or attack, with their figures and tables."""
