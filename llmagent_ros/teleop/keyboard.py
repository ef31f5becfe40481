"""Single key presses from a terminal, which is left as it was found."""

from __future__ import annotations

import atexit
import math
import os
import re
import termios

REPEAT_PAUSE = 0.7  # s; the longest pause before a held key repeats that is a default somewhere is 0.66, of X
_PORTION = 64  # bytes; more than a person types between two looks
_ARROWS = {"A": "up", "B": "down", "C": "right", "D": "left"}
_KEY = re.compile(r"\x1b[\[O](?:[0-9;?]*([@-~]))?|[^\x1b]")  # ECMA-48: what a key that types nothing sends
_CUT = re.compile(r"\x1b(?:[\[O][0-9;?]*)?$")


class Keystrokes:
    """What a terminal sends, as keys: a lower-case character, or "up", "down", "right", "left" of an arrow.

    Others that send several characters are none: the A of an arrow must not pass for the key a. Caps Lock changes
    nothing.
    """

    def __init__(self) -> None:
        self._rest = ""  # of a key of which not all was read

    def take(self, typed: str) -> list[str]:
        """The keys in what was typed since."""
        text = self._rest + typed
        cut = _CUT.search(text) if typed else None  # when nothing follows, it was the key Escape
        self._rest = cut[0] if cut is not None else ""
        text = text[: cut.start()] if cut is not None else text
        found = [(match[1], match[0]) for match in _KEY.finditer(text)]
        keys = [_ARROWS.get(last, "") if sent[0] == "\x1b" else sent.lower() for last, sent in found]
        return [key for key in keys if key]


class Repeats:
    """Tells a key that is held from one that is pressed, which a terminal sends alike. Times: s, steady clock."""

    def __init__(self) -> None:
        self._last = ""
        self._heard = -math.inf

    def take(self, key: str, now: float) -> bool:
        """Takes a key; whether it is the one before, still held: heard within REPEAT_PAUSE, and no other between."""
        repeated = key == self._last and now - self._heard < REPEAT_PAUSE
        self._last, self._heard = key, now
        return repeated


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
