"""What works without a network: the built-in teacher's weights, captions, real images, miniatures."""
