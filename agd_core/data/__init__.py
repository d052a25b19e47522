"""Trajectories on their way: what is planned, collected, ordered and read in batches."""
