"""The two ways in which data preparation says no."""


class UsageError(Exception):
    """A command cannot run as given; the message is one sentence for its user."""


class Reject(Exception):  # noqa: N818 - a verdict on a row, no error of the program
    """A row, or one image of it, cannot become a record.

    Attributes:
        reason: a short, fixed phrase; rejects are counted by it.
        detail: what exactly is wrong.
    """

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
