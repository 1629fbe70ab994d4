"""What is raised when a model cannot be exported faithfully."""

from clipdrift_contract.errors import ClipdriftError


class ExportError(ClipdriftError):
    """The exported file would not say what torch says, or there is none; the message says why and what to do."""
