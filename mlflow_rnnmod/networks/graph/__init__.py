"""Networks as graphs of ordinary operations, dense ones for now."""
