"""What can be wrong with a list of prompts."""


class PromptProblem(ValueError):
    """A list of prompts cannot be used: one clear line that says what, where and what is allowed."""
