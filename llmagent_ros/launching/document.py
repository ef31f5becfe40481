"""A launch file as a tree of elements with line numbers, checked against the tags and attributes that are known."""

from __future__ import annotations

import xml.parsers.expat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from llmagent_ros.errors import ConfigError, UnknownNameError

CONDITIONS = ("if", "unless")
_PROCESS = (
    "args", "cwd", "exec_name", "launch-prefix", "name", "on_exit", "output",
    "respawn", "respawn_delay", "respawn_max_retries",
)  # fmt: skip


@dataclass(frozen=True)
class _Tag:
    """Attributes and children of one tag; actions also take `if` or `unless`."""

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    action: bool = True


ACTIONS = {
    "arg": _Tag(("name",), ("default", "description"), ("choice",)),
    "let": _Tag(("name", "value")),
    "node": _Tag(("exec",), (*_PROCESS, "namespace", "pkg", "ros_args"), ("env", "param", "remap")),
    "executable": _Tag(("cmd",), tuple(name for name in _PROCESS if name not in ("args", "exec_name")), ("env",)),
    "include": _Tag(("file",), (), ("arg",)),
    "group": _Tag((), ("scoped", "forwarding"), ("keep",)),
    "set_env": _Tag(("name", "value")),
    "unset_env": _Tag(("name",)),
    "set_parameter": _Tag(("name", "value")),
    "set_parameters_from_file": _Tag(("filename",)),
    "set_remap": _Tag(("from", "to")),
    "push_ros_namespace": _Tag(("namespace",)),
    "push-ros-namespace": _Tag(("namespace",)),
    "log": _Tag(("message",)),
}
_PARTS = {
    "choice": _Tag(("value",), action=False),
    "env": _Tag(("name", "value"), action=False),
    "keep": _Tag(("name", "value"), action=False),
    "remap": _Tag(("from", "to"), action=False),
    "param": _Tag((), ("name", "value", "type", "from", "allow_substs"), ("param",), action=False),
}
_INCLUDE_ARGUMENT = _Tag(("name", "value"), action=False)
_ROOT = _Tag((), ("deprecated",), action=False)


@dataclass
class Element:
    """One tag with its attributes, its children, and the place it stands at ("file:line")."""

    tag: str
    attributes: dict[str, str]
    place: str
    children: list[Element] = field(default_factory=list)

    def all(self, tag: str) -> Iterator[Element]:
        """The children of one tag."""
        return (child for child in self.children if child.tag == tag)


class LocatedError(ConfigError):
    """An error with the place in a launch file that it is about."""

    def __init__(self, element: Element, problem: object) -> None:
        super().__init__(f"{element.place}: {problem}")


def read(path: Path) -> Element:
    """The checked root of a launch file.

    Raises:
        ConfigError: it cannot be read, is not XML, or has an unknown tag or attribute (the known ones are listed).
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    root = _parse(content, path)
    if root.tag != "launch":
        raise LocatedError(root, f"the root of a launch file is <launch>, found <{root.tag}>")
    _check(root, _ROOT, tuple(ACTIONS))
    return root


def declared(root: Element) -> Iterator[Element]:
    """Every `<arg>` that a file declares, also under conditions and in groups."""
    for child in root.children:
        if child.tag == "arg":
            yield child
        elif child.tag == "group":
            yield from declared(child)


def _parse(content: bytes, path: Path) -> Element:
    parser = xml.parsers.expat.ParserCreate()
    document = Element("", {}, str(path))
    open_elements = [document]

    def start(tag: str, attributes: dict[str, str]) -> None:
        element = Element(tag, attributes, f"{path}:{parser.CurrentLineNumber}")
        open_elements[-1].children.append(element)
        open_elements.append(element)

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda tag: open_elements.pop() and None
    try:
        parser.Parse(content, True)
    except xml.parsers.expat.ExpatError as error:
        problem = xml.parsers.expat.ErrorString(error.code)
        raise ConfigError(f"{path}:{error.lineno}: not well-formed XML: {problem}") from error
    return document.children[0]


def _check(element: Element, tag: _Tag, actions: tuple[str, ...]) -> None:
    """Refuse what is not known in `element` and below; `actions`: tags of actions that may stand in it."""
    valid = (*tag.required, *tag.optional, *(CONDITIONS if tag.action else ()))
    for name in element.attributes:
        if name not in valid:
            raise LocatedError(element, UnknownNameError(f"attribute of <{element.tag}>", name, valid))
    for name in tag.required:
        if name not in element.attributes:
            raise LocatedError(element, f"<{element.tag}> needs the attribute {name}")
    if all(condition in element.attributes for condition in CONDITIONS):
        raise LocatedError(element, f"<{element.tag}> has both if and unless; only one of them can be given")
    for child in element.children:
        if child.tag not in (*actions, *tag.children):
            choices = (*actions, *tag.children)
            raise LocatedError(child, UnknownNameError(f"tag in <{element.tag}>", child.tag, choices))
        _check(child, _tag(element, child), tuple(ACTIONS) if child.tag == "group" else ())


def _tag(parent: Element, child: Element) -> _Tag:
    if child.tag == "arg" and parent.tag == "include":
        return _INCLUDE_ARGUMENT
    return ACTIONS.get(child.tag) or _PARTS[child.tag]
