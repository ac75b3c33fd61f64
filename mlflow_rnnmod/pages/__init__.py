"""Floor 5: all that people look at: cards, the report, the index, pictures."""
