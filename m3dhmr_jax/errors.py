"""What a user can get wrong."""


class UserError(ValueError):
    """A value, file or option that the user has to change; its message states which, why and how.

    Command lines report it as one line with exit code 2. Every other exception is a fault of the
    program and keeps its traceback.
    """
