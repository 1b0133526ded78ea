"""Hooks inside a model: which layers, how they are set and taken out, and how numbers leave the device."""
