"""Callbacks that steer a training: each decides by a pure condition or schedule and acts through the run's verbs."""
