"""Checkpoints: layout, atomic commit, verification, retention, and what reads them back."""
