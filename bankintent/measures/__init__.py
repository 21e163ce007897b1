"""Numbers and pictures from arrays."""
