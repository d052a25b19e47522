"""Images of every method and what is measured on them."""
