"""Errors that amp.nft raises, with one base class."""


def printable(text: str) -> str:
    """Return a text without control characters, which could change a terminal; line ends and tabs stay.

    Parameters
    ----------
    text : str
        Perhaps from a file or a parent.

    Returns
    -------
    str
    """
    return "".join(character if character.isprintable() or character in "\n\t" else "?" for character in text)


class NFTError(Exception):
    """Base class of the errors that amp.nft defines; its text has no control characters."""

    def __str__(self) -> str:
        return printable(super().__str__())


class InputError(NFTError, ValueError):
    """A value, structure or file that the user gives cannot be used; raised before any work starts."""


class AtomIndexError(InputError, IndexError):
    """An index is outside the atoms of a structure, or the members of an ensemble."""


class AmpFileError(NFTError, ValueError):
    """A file of Amp's is damaged, or of another kind."""


class UnsupportedModel(NFTError, ValueError):
    """A model that the kernels cannot evaluate: not Gaussian fingerprints with a neural network of Amp's."""


class RunStoreError(NFTError, RuntimeError):
    """The files of a run cannot be used."""


class ContentError(RunStoreError):
    """Content of a run is whole, but not of the kind that its journal says."""


class LabellingError(NFTError, RuntimeError):
    """No chunk of a batch could be labelled."""


class TrainingError(NFTError, RuntimeError):
    """A trained ensemble is of no use."""


class ExecutorError(NFTError, RuntimeError):
    """The executor accepts no work, or no more."""


class JobError(NFTError, RuntimeError):
    """The training job of a member failed too often."""


class ChunkError(NFTError, ValueError):
    """Arguments or atoms from which no chunk can be made."""


class ParentMismatch(NFTError, ValueError):
    """The parent does not give the labels of the first images, or their cells are too small for it."""


class CorrectionError(NFTError, ValueError):
    """A correction by a cheap calculator that does not help, or cannot be applied."""


class LammpsError(NFTError, RuntimeError):
    """LAMMPS stopped with an error."""
