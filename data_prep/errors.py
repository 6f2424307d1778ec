"""How data preparation says no to a part of the data; `UsageError` says no to all of it."""


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
