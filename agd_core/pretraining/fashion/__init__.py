"""Training `builtin:fashion-dit` from the real images: classifier, VAE, class-conditional DiT."""
