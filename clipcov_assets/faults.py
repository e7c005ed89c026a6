"""Which faults may pass by themselves, and what a fault says: the same for a step here and for a job on a cluster."""

from resources.pieces import InUseError

# What a machine does to work that is in order: a network or a disk that fails, memory that is short, a GPU in trouble.
MACHINE_FAULTS = (OSError, MemoryError, RuntimeError)
# What is not there, or is at work already, will be so in a minute, too.
LASTING = (FileNotFoundError, NotADirectoryError, NotImplementedError, RecursionError, InUseError)


def may_pass(fault: BaseException) -> bool:
    """Whether trying again can help: a fault of the machine does not come from the data or from the code."""
    return isinstance(fault, MACHINE_FAULTS) and not isinstance(fault, LASTING)


def words_of(fault: BaseException) -> str:
    """What a fault says to the person who has to mend it."""
    told = isinstance(fault, ValueError | KeyError | OSError | InUseError)
    words = str(fault.args[0] if isinstance(fault, KeyError) and fault.args else fault)
    return words if told else f"{type(fault).__name__}: {words}"
