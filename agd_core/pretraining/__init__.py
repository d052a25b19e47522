"""How the built-in worlds were trained, a room for each."""
