"""How one pass enters a stock pipeline."""
