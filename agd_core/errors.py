"""The one exception that means "your input is wrong", as opposed to "our code is wrong"."""


class InputError(ValueError):
    """Bad input from a person: one clear line that says what, where and what is allowed.

    The command line prints the message and exits with code 2; a flow run fails with it.
    """
