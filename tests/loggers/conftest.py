"""What the tests of loggers share."""

import sys
from types import ModuleType

# TensorBoard's own switch: its reader works without TensorFlow, whose import takes many seconds.
sys.modules.setdefault("tensorboard.compat.notf", ModuleType("tensorboard.compat.notf"))
