"""Conditions: pure decisions from the values of a training, to be combined with ``|``, ``&`` and ``~``."""
