"""Loggers: one file per destination; none of them ever blocks or kills a training."""
