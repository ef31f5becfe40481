"""The screen as lines of rich Text: always within the width and height there is, at 80x24, wider, and much narrower."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from llmagent_ros.console.state import ConsoleState
from llmagent_ros.console.text import bar, clean, clock, count, percent, sparkline

_TWO_COLUMNS = 112  # columns from which scene and decision stand side by side,
_TWO_COLUMNS_HEIGHT = 18  # if there are lines enough for the head and the warnings above and below them
_LABEL = "grey58"
_QUIET = "grey50"


def render(state: ConsoleState) -> RenderableType:
    """The view of `state`, laid out for whatever console prints it: never more lines or columns than that has."""
    return _View(state)


def status_line(state: ConsoleState) -> str:
    """The state as one line of plain text, for logs and pipes."""
    of = f"/{state.episodes}" if state.episodes else ""
    last = "-" if state.last_return is None else f"{state.last_return:+.2f} {clean(state.last_reason, True)}".strip()
    guard = clean(state.guard_source, True) or "-"
    return (
        f"[{clock(state.elapsed_s)}] episodes {state.finished}{of} | success last 20: "
        f"{percent(state.success_last_20)} | return {last} | steps {state.env_steps} "
        f"({_per_second(state.env_steps_per_s)}) | updates {state.updates} ({_per_second(state.updates_per_s)}) | "
        f"adapter {clean(state.adapter, True) or '-'} | guard {guard}, {sum(state.guard_counts.values())} interventions"
    )


@dataclass(frozen=True)
class _Block:
    """A part of the screen: `draw(n)` gives at most n lines; it wants `wanted` and can do with `minimum`.

    Blocks with a higher `rank` give up lines first, and are left out first.
    """

    draw: Callable[[int], list[Text]]
    wanted: int
    minimum: int
    rank: int


class _View:
    def __init__(self, state: ConsoleState) -> None:
        self._state = state

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.max_width, options.height or options.max_height
        yield from _Page(self._state, options.ascii_only).lines(width, height)


class _Page:
    def __init__(self, state: ConsoleState, ascii_only: bool) -> None:
        self._state = state
        self._ascii = ascii_only

    def lines(self, width: int, height: int) -> list[Text]:
        """At most `height` lines of at most `width` columns."""
        head = [
            _fixed([self._title(width)], rank=0),
            _fixed([self._progress(width)], rank=0),
            _fixed([self._labelled("task", self._state.task, "bold")], rank=1),
            _fixed([self._learning(width)], rank=2),
        ]
        if width < _TWO_COLUMNS or height < _TWO_COLUMNS_HEIGHT:
            blocks = [*head, *self._scene(width), *self._decision(width), *self._guard(width), *self._knowledge(width)]
            found = _fit([*blocks, *self._warnings(width)], height)
        else:
            top = _fit(head, height)
            left, right = width // 2 - 2, width - width // 2 - 1
            notices = _fit(self._warnings(width), max(0, height - len(top)))
            rest = max(0, height - len(top) - len(notices))
            found = top + self._beside(
                _fit([*self._scene(left), *self._knowledge(left)], rest),
                _fit([*self._decision(right), *self._guard(right)], rest),
                left,
            )
            found += notices
        for line in found:
            line.no_wrap, line.end = True, "\n"
            line.truncate(width, overflow="crop" if self._ascii else "ellipsis")
        return found[:height]

    def _title(self, width: int) -> Text:
        name, elapsed = clean(self._state.title, self._ascii), clock(self._state.elapsed_s)
        line = Text(f" {name}", style="bold white on dark_blue")
        line.truncate(max(0, width - len(elapsed) - 2))
        line.append(" " * max(1, width - cell_len(line.plain) - len(elapsed) - 1) + f"{elapsed} ")
        return line

    def _progress(self, width: int) -> Text:
        state = self._state
        of = f" of {state.episodes}" if state.episodes else ""
        share = state.success_last_20
        line = self._label("episode").append(f"{state.episode + 1}{of}", "bold")
        line.append("  success ", _LABEL).append(percent(share), _share_style(share))
        tail = Text("  return ", _LABEL).append(f"{state.total_reward:+.2f}", "bold")
        room = width - cell_len(line.plain) - cell_len(tail.plain) - 1
        if state.last_return is not None:
            last = f"  last {state.last_return:+.2f} {clean(state.last_reason, self._ascii)[:12]}"
            if cell_len(last) <= room:
                tail.append(last, _QUIET)
                room -= cell_len(last)
        if room >= 4 and state.trend:
            trend = list(state.trend)[-min(room, 40) :]
            line.append(" ").append(sparkline(trend, self._ascii), _share_style(share))
        return line.append_text(tail)

    def _learning(self, width: int) -> Text:
        state = self._state
        line = self._label("adapter").append(clean(state.adapter, self._ascii) or "-", "magenta")
        line.append("  updates ", _LABEL).append(count(state.updates))
        line.append(f" {_per_second(state.updates_per_s)}", "cyan")
        line.append("  steps ", _LABEL).append(count(state.env_steps))
        return line.append(f" {_per_second(state.env_steps_per_s)}", "cyan")

    def _scene(self, width: int) -> list[_Block]:
        text = Text(clean(self._state.scene, self._ascii) or "none yet", style="" if self._state.scene else _QUIET)
        wrapped = list(text.wrap(_MEASURE, max(1, width - 2)))
        lines = [Text("  ").append_text(line) for line in wrapped]
        return [
            _fixed([self._rule("scene", width)], rank=6),
            _Block(lambda n: lines[:n], min(len(lines), 12), min(len(lines), 3), 4),
        ]

    def _decision(self, width: int) -> list[_Block]:
        state = self._state
        rows = max(1, len(state.candidates))
        return [
            _fixed([self._rule("decision", width)], rank=6),
            _Block(lambda n: self._candidates(n, width), min(rows, 16), min(rows, 4), 3),
        ]

    def _candidates(self, rows: int, width: int) -> list[Text]:
        """The likeliest phrases and always the chosen one, in the order of the vocabulary, so that they stay put."""
        state = self._state
        entries = list(zip(state.candidates, state.probabilities, state.values, strict=False))
        if not entries:
            return [Text("  none yet", style=_QUIET)][:rows]

        def weight(index: int) -> tuple[bool, float]:
            return entries[index][0] == state.chosen, entries[index][1]

        shown = sorted(heapq.nlargest(rows, range(len(entries)), key=weight))
        names = {index: clean(entries[index][0], self._ascii) for index in shown}
        column = min(max((cell_len(name) for name in names.values()), default=1), max(4, width // 3))
        room = width - column - 4 - 7 - 9
        lines = []
        for index in shown:
            phrase, probability, value = entries[index]
            chosen = phrase == state.chosen
            name = Text(names[index])
            name.truncate(column, pad=True, overflow="crop")
            mark = (">" if self._ascii else "▸") if chosen else " "
            line = Text(f" {mark} ", style="bold green").append_text(name).append(" ")
            line.stylize("bold green" if chosen else "", 3)
            if room >= 4:
                line.append(bar(probability, min(room, 40), self._ascii), "green" if chosen else "steel_blue")
            line.append(f" {probability:6.3f}", "bold" if chosen else "")
            if width >= 40:
                line.append(f" {value:+8.3f}", _LABEL)
            lines.append(line)
        return lines

    def _guard(self, width: int) -> list[_Block]:
        state = self._state
        source, reason = (clean(text, self._ascii) for text in (state.guard_source, state.guard_reason))
        style = "green" if source == "policy" and not reason else "bold yellow"
        line = self._label("guard").append(source or "-", style if source else _QUIET)
        if reason:
            line.append(f": {reason}", style)
        most = heapq.nlargest(6, state.guard_counts.items(), key=lambda item: item[1])
        line.append(f"  interventions {count(sum(state.guard_counts.values()))}", _LABEL)
        if most:
            named = ", ".join(f"{clean(name, self._ascii)} {number}" for name, number in most)
            line.append(f" ({named})", _LABEL)
        return [_fixed([self._rule("", width)], rank=7), _fixed([line], rank=1)]

    def _knowledge(self, width: int) -> list[_Block]:
        skills = "; ".join(clean(skill, self._ascii) for skill in self._state.skills[:5])
        blocks = [_fixed([self._labelled("skills", skills)], rank=5)]
        lessons = [self._labelled("lesson", lesson, "italic") for lesson in self._state.lessons[:4]]
        if lessons:
            blocks.append(_Block(lambda n: lessons[:n], len(lessons), 1, 5))
        return blocks

    def _warnings(self, width: int) -> list[_Block]:
        newest_first = [self._labelled("warning", text, "yellow") for text in reversed(self._state.warnings)]
        return [_Block(lambda n: newest_first[:n][::-1], len(newest_first), 1, 2)] if newest_first else []

    def _beside(self, left: list[Text], right: list[Text], width: int) -> list[Text]:
        rows = max(len(left), len(right))
        lines = []
        for index in range(rows):
            line = left[index] if index < len(left) else Text()
            line.truncate(width, pad=True, overflow="crop" if self._ascii else "ellipsis")
            line.append(" | " if self._ascii else " │ ", _QUIET)
            lines.append(line.append_text(right[index]) if index < len(right) else line)
        return lines

    def _label(self, name: str) -> Text:
        return Text().append(f" {name:<8}", _LABEL)

    def _labelled(self, name: str, text: str, style: str = "") -> Text:
        shown = clean(text, self._ascii)
        return self._label(name).append(shown or "-", style if shown else _QUIET)

    def _rule(self, name: str, width: int) -> Text:
        stroke = "-" if self._ascii else "─"
        start = f" {stroke} {name} " if name else f" {stroke}"
        return Text(start + stroke * max(0, width - len(start) - 1), style=_QUIET)


_MEASURE = Console(width=80, file=None, force_terminal=False, color_system=None)  # Text.wrap asks for one; unused else


def _fixed(lines: list[Text], rank: int) -> _Block:
    return _Block(lambda n: lines[:n], len(lines), len(lines), rank)


def _fit(blocks: list[_Block], height: int) -> list[Text]:
    """The lines of `blocks` in at most `height`: shrink by rank to the minimum first, then leave out by rank."""
    sizes = [block.wanted for block in blocks]
    order = sorted(range(len(blocks)), key=lambda index: -blocks[index].rank)
    for floor in ([block.minimum for block in blocks], [0] * len(blocks)):
        for index in order:
            over = sum(sizes) - height
            if over <= 0:
                break
            sizes[index] -= min(over, max(0, sizes[index] - floor[index]))
    return [line for block, size in zip(blocks, sizes, strict=True) for line in block.draw(size)[:size]]


def _share_style(share: float | None) -> str:
    if share is None:
        return _QUIET
    return "bold green" if share >= 0.7 else "bold yellow" if share >= 0.3 else "bold red"


def _per_second(rate: float) -> str:
    return f"{rate:.1f}/s"
