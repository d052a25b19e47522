"""Results side by side: which rows belong together, which numbers may be compared, and what they say."""
