"""Devices by name, refused before anything is computed where they are no device or cannot be used here."""

import torch

from perceptkit.errors import SpecError


def find_device(device: str | None) -> torch.device:
    """CUDA where there is one, unless told.

    Raises SpecError for a name that is none, and for a device that this machine or this torch does not have.
    """
    try:
        found = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise SpecError(f"{device!r} is not a device; cpu, cuda and cuda:1 are") from error
    if found.type == "meta":
        raise SpecError(
            "'meta' has shapes and no numbers: nothing is computed there; cpu, cuda and cuda:1 can"
        )
    try:
        torch.empty(1, device=found)
    except (
        Exception
    ) as error:  # of each device its own: RuntimeError, AssertionError, NotImplementedError, ...
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0]
        raise SpecError(f"device {found} cannot be used here: {reason}") from error
    return found
