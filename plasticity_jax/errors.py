"""Errors that a user can fix.  `main` prints their message, one line, and exits; it catches no other errors."""


class LabError(Exception):
    """Base class; the message says in one line what is wrong, where, and what to do."""


class ConfigError(LabError):
    """A config with an unknown key, a wrong value or an inconsistent plan."""


class RoomError(ConfigError):
    """A plan that does not fit into the memory of the device."""


class DataError(LabError):
    """A data set that is missing, unreadable or unsuitable."""


class WorkdirError(LabError):
    """A working directory that is in use, belongs to another config, or cannot be written."""


class BusyError(WorkdirError):
    """A working directory that another process is using."""


class LostError(WorkdirError):
    """A working directory that was deleted or replaced while a process was using it."""


class CheckpointError(LabError):
    """A checkpoint that cannot be written or read."""


class Preempted(Exception):
    """The process was asked to stop and has saved its state; not an error."""
