"""From a launch file and its arguments to the processes that it stands for. Nothing is started here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from llmagent_ros.errors import ConfigError, LlmAgentError, UnknownNameError
from llmagent_ros.launching import document, parameters, substitution
from llmagent_ros.launching.context import Argument, Context
from llmagent_ros.launching.document import Element, LocatedError
from llmagent_ros.launching.process import ProcessSpec, executable_spec, node_spec, prefixed_namespace

MAX_DEPTH = 32


@dataclass(frozen=True)
class Launch:
    """A launch file expanded.

    Attributes:
        processes: in start order. arguments: every one that may be given, in file order. notes: texts of `<log>`.
    """

    processes: tuple[ProcessSpec, ...]
    arguments: tuple[Argument, ...]
    notes: tuple[str, ...]


def expand(path: Path, given: Mapping[str, str], scratch: Path, environment: Mapping[str, str]) -> Launch:
    """The processes of a launch file.

    Args:
        given: values of arguments by name. scratch: an existing folder for parameter files.

    Raises:
        ConfigError: the file or one it includes is wrong, an argument is unknown, missing or not one of its
            choices, or an executable, package or parameter file does not exist. The place is named.
    """
    expander = _Expander(Context(path, scratch, dict(environment), dict(given)))
    expander.file(path)
    context = expander.context
    unknown = [name for name in given if name not in context.declared]
    if unknown:
        raise UnknownNameError(f"launch argument of {path.name}", unknown[0], context.declared)
    return Launch(tuple(expander.processes), tuple(context.declared.values()), tuple(expander.notes))


def arguments(path: Path) -> list[Argument]:
    """The arguments that a launch file itself declares, in order.

    Raises:
        ConfigError: the file is wrong.
    """
    return [_argument(element) for element in document.declared(document.read(path))]


def parse_arguments(words: list[str]) -> dict[str, str]:
    """`name:=value` words as a mapping; of one given twice, the last counts.

    Raises:
        ConfigError: a word is not of that form.
    """
    given = {}
    for word in words:
        name, sign, value = word.partition(":=")
        if not sign or not name or not value:
            raise ConfigError(f"malformed launch argument {word!r}; expected name:=value")
        given[name] = value
    return given


def _argument(element: Element) -> Argument:
    attributes = element.attributes
    choices = tuple(choice.attributes["value"] for choice in element.all("choice"))
    return Argument(attributes["name"], attributes.get("default"), attributes.get("description", ""), choices)


class _Expander:
    """Walks the elements in order, as launch does, and collects what would be started."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.processes: list[ProcessSpec] = []
        self.notes: list[str] = []
        self._depth = 0
        self._actions: Mapping[str, Callable[[Element], None]] = {
            "arg": self._declare,
            "let": self._let,
            "node": self._node,
            "executable": self._executable,
            "include": self._include,
            "group": self._group,
            "set_env": self._set_env,
            "unset_env": self._unset_env,
            "set_parameter": self._set_parameter,
            "set_parameters_from_file": self._set_parameters_from_file,
            "set_remap": self._set_remap,
            "push_ros_namespace": self._push_namespace,
            "push-ros-namespace": self._push_namespace,
            "log": self._log,
        }

    def file(self, path: Path, settled: Collection[str] = ()) -> None:
        """Expand one file in the present context; what an include has settled is nobody's to give."""
        root = document.read(path)
        for element in document.declared(root):  # also those that a condition leaves out may be given
            if element.attributes["name"] not in settled:
                self.context.declared.setdefault(element.attributes["name"], _argument(element))
        if self._depth >= MAX_DEPTH:
            raise ConfigError(f"{path}: included {MAX_DEPTH} deep; does it include itself?")
        self._depth += 1
        with self.context.reading(path):
            self._walk(root.children)
        self._depth -= 1

    def _walk(self, elements: list[Element]) -> None:
        for element in elements:
            try:
                if self._wanted(element):
                    self._actions[element.tag](element)
            except LocatedError:
                raise
            except LlmAgentError as error:
                raise LocatedError(element, error) from error

    def _wanted(self, element: Element) -> bool:
        for name in document.CONDITIONS:
            if name in element.attributes:
                return substitution.as_bool(self._text(element, name), name) is (name == "if")
        return True

    def _text(self, element: Element, name: str) -> str:
        """An attribute with its substitutions carried out."""
        return substitution.perform(substitution.parse(element.attributes[name]), self.context)

    def _declare(self, element: Element) -> None:
        argument = _argument(element)
        values = self.context.configurations
        if argument.name not in values:
            if argument.default is None:
                raise ConfigError(f"launch argument {argument.name} must be given: {argument.name}:=… "
                                  f"({argument.description or 'no description'})")
            values[argument.name] = self._text(element, "default")
        if argument.choices and values[argument.name] not in argument.choices:
            raise UnknownNameError(f"value of launch argument {argument.name}", values[argument.name], argument.choices)

    def _let(self, element: Element) -> None:
        name = self._text(element, "name")
        try:
            self.context.configurations[name] = self._text(element, "value")
        except LlmAgentError as error:
            raise ConfigError(f"{name}: {error}") from error

    def _node(self, element: Element) -> None:
        self.processes.append(node_spec(element, self.context, len(self.processes) + 1))

    def _executable(self, element: Element) -> None:
        self.processes.append(executable_spec(element, self.context, len(self.processes) + 1))

    def _include(self, element: Element) -> None:
        """As in launch, arguments given to an included file stay set after it, unless a group encloses both."""
        path = Path(self._text(element, "file"))
        if path.suffix != ".xml":
            raise ConfigError(f"{path}: only launch files in XML can be included here")
        values = [(self._text(child, "name"), self._text(child, "value")) for child in element.all("arg")]
        self.context.configurations.update(values)
        self.file(path if path.is_absolute() else Path.cwd() / path, settled=[name for name, _ in values])

    def _group(self, element: Element) -> None:
        kept = [(self._text(child, "name"), self._text(child, "value")) for child in element.all("keep")]
        inner = [child for child in element.children if child.tag != "keep"]
        if not self._flag(element, "scoped"):
            self.context.configurations.update(kept)
            self._walk(inner)
            return
        with self.context.scope(forwarding=self._flag(element, "forwarding")):
            self.context.configurations.update(kept)
            self._walk(inner)

    def _flag(self, element: Element, name: str) -> bool:
        return substitution.as_bool(element.attributes.get(name, "true"), name)

    def _set_env(self, element: Element) -> None:
        self.context.environment[self._text(element, "name")] = self._text(element, "value")

    def _unset_env(self, element: Element) -> None:
        self.context.environment.pop(self._text(element, "name"), None)

    def _set_parameter(self, element: Element) -> None:
        name = self._text(element, "name")
        self.context.parameters.append((name, parameters.from_yaml(name, self._text(element, "value"))))

    def _set_parameters_from_file(self, element: Element) -> None:
        self.context.parameters.append(Path(self._text(element, "filename")))

    def _set_remap(self, element: Element) -> None:
        self.context.remaps.append((self._text(element, "from"), self._text(element, "to")))

    def _push_namespace(self, element: Element) -> None:
        self.context.namespace = prefixed_namespace(self.context.namespace, self._text(element, "namespace"))

    def _log(self, element: Element) -> None:
        self.notes.append(self._text(element, "message"))
