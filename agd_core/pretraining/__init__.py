"""Training the built-in world from the real images: classifier, VAE, class-conditional DiT."""
