"""`python -m epochal` is the command `epochal`."""

from epochal.cli import main

main()
