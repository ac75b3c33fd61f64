"""``docs/results.md`` and its picture, made of nothing but the rows of the commands."""
