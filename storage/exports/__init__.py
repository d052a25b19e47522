"""Other forms of a whole trajectory store, and the way back."""
