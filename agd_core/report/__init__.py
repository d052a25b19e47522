"""Results that a person can look at: image grids, plots, one self-contained HTML page. Pure: data in, bytes out."""
