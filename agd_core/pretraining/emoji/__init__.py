"""The built-in text-to-image world: vector emoji of several styles, each with a name (docs/emoji.md)."""
