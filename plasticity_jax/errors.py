"""Errors that a user can mend.  `main` prints their one line and exits; nothing else is caught there."""


class LabError(Exception):
    """What is wrong, where, and what to do about it, in one line."""


class ConfigError(LabError):
    """A config with an unknown key, a wrong value or a plan that cannot be walked."""


class RoomError(ConfigError):
    """A plan that does not fit into the memory of the device."""


class DataError(LabError):
    """A data set that is missing, unreadable or unfit."""


class WorkdirError(LabError):
    """A working directory that is in use, belongs to another config, or cannot be written."""


class BusyError(WorkdirError):
    """A working directory in which another process is at work."""


class CheckpointError(LabError):
    """A checkpoint that cannot be written or read."""


class Preempted(Exception):
    """The process was asked to stop and has saved; it is no error."""
