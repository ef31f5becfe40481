"""Single key presses from a terminal, which is left as it was found."""

from __future__ import annotations

import atexit
import os
import termios

_PORTION = 64  # bytes; more than a person types between two looks


class Keyboard:
    """Takes a terminal's keys one by one, unechoed; Ctrl-C stays a signal.

    The terminal is restored by `close` and, should that not be reached, when the interpreter exits. Only SIGKILL leaves
    it as it is (`stty sane` helps).

    Args:
        descriptor: of the terminal, for reading; closed by `close`.

    Raises:
        OSError: it is not a terminal.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        try:
            self._found = termios.tcgetattr(descriptor)
        except termios.error as error:
            raise OSError(*error.args) from error
        atexit.register(self.close)
        os.set_blocking(descriptor, False)
        single = termios.tcgetattr(descriptor)
        single[3] &= ~(termios.ICANON | termios.ECHO)
        single[6][termios.VMIN], single[6][termios.VTIME] = 1, 0
        termios.tcsetattr(descriptor, termios.TCSANOW, single)

    def read(self) -> str | None:
        """The keys that were pressed since, "" for none, None when the terminal is gone."""
        try:
            data = os.read(self._descriptor, _PORTION)
        except BlockingIOError:
            return ""
        except OSError:
            return None
        return data.decode("ascii", errors="ignore") if data else None

    def close(self) -> None:
        """Restores the terminal; may be called twice."""
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        atexit.unregister(self.close)
        try:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, self._found)
            os.set_blocking(descriptor, True)
        except (termios.error, OSError):  # the terminal is gone: nothing is left to restore
            pass
        finally:
            os.close(descriptor)
