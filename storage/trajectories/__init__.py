"""A trajectory store: planned, written unit by unit, read in batches, checked, repaired and grown."""
