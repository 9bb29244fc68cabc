"""The one kind of error that is the user's to repair."""


class UserError(ValueError):
    """A mistake in the input: one line that says what is wrong, where, and what to do.

    The command line prints the message alone, without a trace, and exits with status 2.
    """
