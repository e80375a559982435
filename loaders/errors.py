"""What a user sees when something they gave cannot be used."""


class FeedrateError(ValueError):
    """Bad input, told in one sentence: the value, the rule it breaks and the remedy.

    Commands print the message alone and exit with status 2; any other exception is a bug and keeps its traceback.
    """


class LoaderError(FeedrateError):
    """A sample could not be delivered; the message names its id and where it is stored."""
