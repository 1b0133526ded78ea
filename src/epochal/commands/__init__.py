"""What the commands of `epochal` do, one file each; the table of them is in cli.py."""
