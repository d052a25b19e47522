"""What every run on a machine shares: its devices, locks and memory, and signals to stop."""
