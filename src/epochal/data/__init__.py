"""Data that can be gone on with: a loader's order, where a run stands in it, and a loader of our own."""
