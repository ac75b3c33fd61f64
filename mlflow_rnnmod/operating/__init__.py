"""Floor 6: composites in use: put behind a gate, rolled back, composed from recipes, watched."""
