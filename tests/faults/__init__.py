"""Faults and hostile files: what the promises of the README are measured with."""
