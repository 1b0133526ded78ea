"""Callbacks that connect a training with a search over hyper-parameters."""
