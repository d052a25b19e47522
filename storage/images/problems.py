"""What can be wrong with real images."""


class ImageProblem(ValueError):
    """A source of images cannot be used: one clear line that says what, where and what is allowed."""
