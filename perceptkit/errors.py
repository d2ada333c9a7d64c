"""Every failure that a user can cause or mend, and the exit code that the shell sees for it."""


class PerceptkitError(Exception):
    """Base of all errors whose message is written for the person who typed the command."""

    exit_code = 1


class SpecError(PerceptkitError):
    """The tasks file, the recipe or the command line says something that cannot be meant."""

    exit_code = 2


class DataError(PerceptkitError):
    """A picture or a label on disk is missing, unreadable or contradicts the tasks file."""

    exit_code = 3


class PlanError(PerceptkitError):
    """A plan does not fit the network it is applied to."""


class ExportError(PerceptkitError):
    """An artifact or an exported file does not reproduce the network it was made from."""


class ResumeError(PerceptkitError):
    """A run folder cannot be continued as asked."""

    exit_code = 2
