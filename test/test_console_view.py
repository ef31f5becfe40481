"""The screen at every size, with texts that try to break out of it."""

import contextlib
import io
import os
import pty
import re
import threading

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from llmagent_ros.console.live import ConsoleConfig, LiveConsole
from llmagent_ros.console.state import ConsoleState, Rate
from llmagent_ros.console.text import bar, clean, clock, count, percent, printable, sparkline
from llmagent_ros.console.view import render, status_line
from llmagent_ros.types import Decision

PHRASES = ("forward", "curve left", "curve right", "turn left", "turn right", "back")


def full_state() -> ConsoleState:
    state = ConsoleState(episodes=150, elapsed_s=252.0)
    for number in range(37):
        state.end_episode(number >= 28, 0.5, "reached")
    state.begin_episode(37, "go to the red ball")
    state.skills, state.lessons = ("reach red ball (0.92)",), ("turn early",)
    probabilities = np.array([0.71, 0.18, 0.05, 0.03, 0.02, 0.01], np.float32)
    values = np.array([0.92, 0.7, 0.5, 0.3, 0.2, -0.1], np.float32)
    scene = "red ball 20 left 2.3 m. front 1.9. last: forward."
    state.decide(Decision("forward", -0.34, PHRASES, probabilities, values, "v000012"), scene)
    state.updates, state.updates_per_s, state.env_steps, state.env_steps_per_s = 8120, 12.34, 2310, 9.8
    state.guard_source, state.guard_reason, state.guard_counts = "policy", "", {"speed": 3, "stale scan": 1}
    state.warn("scan stale for 0.7 s")
    return state


def shown(state: ConsoleState, width: int, height: int, encoding: str = "utf-8") -> list[str]:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    console = Console(file=stream, width=width, height=height, legacy_windows=False)
    console.print(render(state))
    stream.seek(0)
    return stream.read().split("\n")[:-1]


def test_everything_is_on_an_80x24_screen():
    lines = shown(full_state(), 80, 24)
    screen = "\n".join(lines)
    assert len(lines) <= 24 and max(cell_len(line) for line in lines) <= 80
    for words in ("4:12", "38 of 150", "45 %", "task    go to the red ball", "adapter v000012", "8 120 12.3/s",
                  "2 310 9.8/s", "red ball 20 left 2.3 m", "policy", "interventions 4 (speed 3, stale scan 1)",
                  "reach red ball (0.92)", "turn early", "scan stale for 0.7 s", "▂▃▃"):  # fmt: skip
        assert words in screen
    rows = [line for line in lines if any(f" {phrase} " in line for phrase in PHRASES) and "0." in line and "+" in line]
    assert re.match(r" ▸ forward +█+. +0\.710 +\+0\.920", next(row for row in rows if "▸" in row))
    assert sum("▸" in line for line in lines) == 1


@pytest.mark.parametrize("width", [1, 8, 24, 40, 60, 80, 112, 200])
@pytest.mark.parametrize("height", [1, 4, 8, 14, 24, 60])
def test_it_never_leaves_the_terminal(width, height):
    state = full_state()
    state.scene = "a long scene " * 200
    for text in ("one", "two", "three"):
        state.warn(text)
    lines = shown(state, width, height)
    assert 1 <= len(lines) <= height and max(cell_len(line) for line in lines) <= width
    if height >= 8 and width >= 24:
        assert any("▸ forw" in line for line in lines), "the chosen phrase is the last thing to go"


def test_the_chosen_phrase_stays_when_rows_are_short():
    state = full_state()
    state.chosen = "back"
    lines = shown(state, 60, 9)
    assert any("▸ back" in line for line in lines) and not any("turn right" in line for line in lines)


def test_a_terminal_without_unicode_gets_ascii():
    state = full_state()
    state.task = "zum Würfel"
    screen = "\n".join(shown(state, 80, 24, encoding="ascii"))
    assert " > forward" in screen and "###" in screen and "zum W?rfel" in screen


HOSTILE = "\x1b[2J\x1b]0;owned\x07[bold red]x[/] \x9b31m\u202e:smile: \r\n\x08"


@settings(max_examples=80, deadline=None)
@given(text=st.text() | st.text(alphabet="\x1b[]0;m\x07\x9b\r\n\u202eab字é\ud800"), width=st.integers(20, 130))
@example(text=HOSTILE, width=80)
def test_no_text_can_inject_escapes_or_leave_its_place(text, width):
    state = full_state()
    state.task = state.scene = state.chosen = state.adapter = state.title = state.last_reason = text
    state.guard_source = state.guard_reason = text
    state.candidates = (text, *PHRASES[1:])
    state.skills, state.lessons, state.guard_counts = (text,), (text,), {text: 1}
    state.warn(text)
    lines = shown(state, width, 24)
    assert len(lines) <= 24 and all(cell_len(line) <= width for line in lines)
    printed = "".join(lines) + status_line(state)
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", printed)
    assert status_line(state).isascii()


def test_clean_keeps_words_and_shows_markup_as_it_is():
    assert clean(HOSTILE) == "[bold red]x[/] :smile:"
    assert clean("a\nb\tc  d") == "a b c d"
    assert "[bold]x[/bold]" in "".join(shown(ConsoleState(scene="[bold]x[/bold]"), 80, 24))
    assert len(clean("x" * 10**6)) == 4000


def test_what_was_laid_out_keeps_its_lines_and_loses_what_steers_a_terminal():
    assert printable("a  b\n\tc\x1b[2J \x9b1m\u202e\ud800é🚀\r") == "a  b\n c[2J 1mé🚀"


def test_small_drawings():
    assert bar(0.5, 4) == "██  " and bar(1.0, 3) == "███" and bar(0.0, 3) == "   " and bar(float("nan"), 2) == "  "
    assert bar(0.3125, 2) == "▋ " and bar(7.0, 2, ascii_only=True) == "##"
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█" and sparkline([0.0, 1.0], ascii_only=True) == "09"
    assert (clock(59.9), clock(3661), clock(float("nan"))) == ("0:59", "1:01:01", "0:00")
    assert (count(1234567), percent(None), percent(0.455)) == ("1 234 567", "-", "46 %")


def test_status_line_says_it_in_one_line():
    assert status_line(full_state()) == (
        "[4:12] episodes 37/150 | success last 20: 45 % | return +0.50 reached | steps 2310 (9.8/s) | "
        "updates 8120 (12.3/s) | adapter v000012 | guard policy, 4 interventions"
    )


def test_repeated_warnings_take_one_line_and_only_three_stay():
    state = ConsoleState()
    for text in ("a", "b", "b", "b", "c", "d"):
        state.warn(text)
    assert list(state.warnings) == ["b", "c", "d"]


def test_rate_over_its_window_and_after_a_restart():
    rate = Rate(window=5.0)
    assert rate.observe(100, 0.0) == 0.0
    for second in range(1, 11):
        last = rate.observe(100 + 10 * min(second, 5), float(second))
    assert last == 0.0  # nothing came in the last five seconds
    assert rate.observe(0, 11.0) == 0.0 and rate.observe(30, 13.0) == 15.0
    for call in range(10_000):
        last = rate.observe(30 + call, 13.0 + call * 0.001)
    assert last == pytest.approx(1000.0, rel=0.02) and len(rate._points) <= 64


def test_without_a_terminal_one_line_per_episode_and_every_ten_seconds():
    now = [0.0]
    stream = io.StringIO()
    state = full_state()
    with LiveConsole(stream=stream, clock=lambda: now[0]) as console:
        assert not console.is_live
        assert console.update(state) and not console.update(state)
        state.end_episode(True, 1.0, "reached")
        assert console.update(state) and not console.update(state)
        now[0] = 9.9
        assert not console.update(state)
        now[0] = 10.0
        assert console.update(state)
    lines = stream.getvalue().split("\n")
    assert len(lines) == 4 and all(line.startswith("[4:12] episodes 3") for line in lines[:3])


def test_a_terminal_gets_a_screen_of_at_most_eight_frames_a_second(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    main, side = pty.openpty()
    now = [0.0]
    drawn = 0
    parts: list[bytes] = []

    def drain() -> None:
        """All of it: a terminal gives a few kB at a time, and an error once the other side is closed."""
        with contextlib.suppress(OSError):
            while part := os.read(main, 65536):
                parts.append(part)

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    with os.fdopen(side, "w", encoding="utf-8") as stream:
        console = LiveConsole(ConsoleConfig(), stream=stream, clock=lambda: now[0])
        assert console.is_live
        console.start()
        for call in range(1001):  # one second of updates, 1 ms apart
            now[0] = call / 1000
            if console.update(full_state()):
                drawn += 1
        console.stop(full_state())
    reader.join(timeout=10)
    assert not reader.is_alive()
    os.close(main)
    output = b"".join(parts)
    assert drawn == 9  # at 0, 1/8, ..., 1 s
    assert output.startswith(b"\x1b[?1049h") and b"\x1b[?1049l" in output  # alternate screen taken and given back
    assert "▸ forward".encode() in re.sub(rb"\x1b\[[0-9;]*m", b"", output)
    assert output.rstrip().endswith(b"4 interventions")
