"""The errors that are the user's to repair."""

from collections.abc import Sequence
from dataclasses import dataclass


class UserError(ValueError):
    """A mistake in the input: one line that says what is wrong, where, and what to do.

    The command line prints the message alone, without a trace, and exits with status 2.
    """


@dataclass(frozen=True)
class Missing:
    """Something that a run needs and that is not here.

    Attributes:
      what: "data set 'h36m', split 'train'".
      files: what is not there, in words.
      fetch: where it comes from, under which licence.
      place: where it has to be.
    """

    what: str
    files: str
    fetch: str
    place: str


class MissingFiles(UserError):
    """Files that the user has to fetch, all those of a run in one message.

    What comes from one source makes one line; several sources make a numbered list, which the
    command line prints as it is.
    """

    def __init__(self, missing: Sequence[Missing]) -> None:
        self.missing = tuple(missing)
        sources: dict[tuple[str, str], list[Missing]] = {}
        for one in self.missing:
            sources.setdefault((one.fetch, one.place), []).append(one)
        if len(sources) == 1:
            (fetch, place), things = next(iter(sources.items()))
            lacking = ", ".join(f"{one.what} lacks {one.files}" for one in things)
            super().__init__(f"{lacking}; to be put into {place}; {fetch}")
            return
        lines = ["files are missing that can be neither shipped nor downloaded by a program:"]
        for number, ((fetch, place), things) in enumerate(sources.items(), start=1):
            lines += [f"  {number}. {one.what} lacks {one.files}" for one in things[:1]]
            lines += [f"     {one.what} lacks {one.files}" for one in things[1:]]
            lines += [f"     fetch: {fetch}", f"     put into: {place}"]
        super().__init__("\n".join(lines))
