"""What the processes of one training agree on."""
