"""The part of Python that `$(eval …)` may hold: literals, operators, a few functions; nothing else is in reach."""

from __future__ import annotations

import ast
import operator
import time
from collections.abc import Callable, Mapping
from typing import Any

from llmagent_ros.errors import ConfigError, UnknownNameError

_BINARY: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARE: Mapping[type, Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, items: item in items,
    ast.NotIn: lambda item, items: item not in items,
}
_UNARY: Mapping[type, Callable[[Any], Any]] = {
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "abs": abs,
    "bool": bool,
    "float": float,
    "int": int,
    "len": len,
    "max": max,
    "min": min,
    "round": round,
    "str": str,
}
_MODULES: Mapping[str, Mapping[str, Callable[..., Any]]] = {"math": {}, "time": {"strftime": time.strftime}}
_MAX_LENGTH = 2000


def evaluate(text: str, modules: str = "math") -> str:
    """The value of an expression, as text.

    Args:
        modules: names separated by commas, as in launch: "time" allows time.strftime(format).

    Raises:
        ConfigError: it is not an expression, or uses something that is not in the subset.
    """
    if len(text) > _MAX_LENGTH:
        raise ConfigError(f"$(eval …): longer than {_MAX_LENGTH} characters")
    for module in modules.split(","):
        if module.strip() not in _MODULES:
            raise UnknownNameError("module in $(eval …)", module.strip(), _MODULES)
    try:
        return str(_value(ast.parse(text.strip(), mode="eval").body))
    except SyntaxError as error:
        raise ConfigError(f"$(eval …): not an expression: {text!r}") from error
    except (TypeError, ValueError, ArithmeticError, RecursionError, MemoryError) as error:
        raise ConfigError(f"$(eval …): {text!r}: {error}") from error


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.IfExp):
        return _value(node.body) if _value(node.test) else _value(node.orelse)
    if isinstance(node, ast.BoolOp):
        return _boolean(node)
    if isinstance(node, ast.Compare):
        return _comparison(node)
    if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        return _UNARY[type(node.op)](_value(node.operand))
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Mult) and not all(isinstance(side, (int, float)) for side in (left, right)):
            raise TypeError("only numbers can be multiplied")
        return _BINARY[type(node.op)](left, right)
    if isinstance(node, ast.Call):
        return _call(node)
    raise ValueError(f"{_describe(node)} is not allowed here; valid: literals, comparisons, and, or, not, in, "
                     f"+ - * / // %, a if b else c, {' '.join(_FUNCTIONS)}")


def _boolean(node: ast.BoolOp) -> Any:
    """`and`, `or` with Python's short circuit and value."""
    stop_at = isinstance(node.op, ast.Or)
    value: Any = None
    for operand in node.values:
        value = _value(operand)
        if bool(value) is stop_at:
            break
    return value


def _comparison(node: ast.Compare) -> bool:
    left = _value(node.left)
    for sign, comparator in zip(node.ops, node.comparators, strict=True):
        if type(sign) not in _COMPARE:
            raise ValueError(f"{_describe(sign)} is not allowed here; valid: == != < <= > >= in, not in")
        right = _value(comparator)
        if not _COMPARE[type(sign)](left, right):
            return False
        left = right
    return True


def _call(node: ast.Call) -> Any:
    function = None
    if isinstance(node.func, ast.Name):
        function = _FUNCTIONS.get(node.func.id)
    elif isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
        function = _MODULES.get(node.func.value.id, {}).get(node.func.attr)
    if function is None or node.keywords:
        raise ValueError(f"calling {ast.unparse(node.func)} is not allowed here; valid: {' '.join(_FUNCTIONS)} "
                         "time.strftime")
    return function(*[_value(argument) for argument in node.args])


def _describe(node: ast.AST) -> str:
    return f"name {node.id!r}" if isinstance(node, ast.Name) else type(node).__name__
