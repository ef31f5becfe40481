"""Substitutions and `$(eval …)`: the grammar of the launch front ends, and nothing beyond the subset of Python."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagent_ros.errors import ConfigError
from llmagent_ros.launching import expression, substitution
from llmagent_ros.launching.context import Context


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(
        tmp_path / "a.launch.xml", tmp_path, {"HOME": "/home/me"}, {"who": "me", "n": "3", "yes": "True", "empty": ""}
    )


def perform(text: str, context: Context) -> str:
    return substitution.perform(substitution.parse(text), context)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("plain $5 text", "plain $5 text"),
        ("a$(var who)b$(var n)", "amebn".replace("n", "3")),
        (r"\$(var who)", "$(var who)"),
        (r"back\\slash", r"back\slash"),
        ("$(var missing default)", "default"),
        ("$(var missing 'two words')", "two words"),
        ("$(var missing $(var who)-$(var n))", "me-3"),
        ("$(env HOME)", "/home/me"),
        ("$(env NOT_SET_HERE none)", "none"),
        ("$(and $(var yes) $(not false))", "true"),
        ("$(or 0 FALSE)", "false"),
        ("$(equals $(var n) 3)", "true"),
        ("$(not-equals $(var n) 3)", "false"),
        ("$(eval '1 + 2')", "3"),
        ('$(eval "\'$(var who)\' == \'me\'")', "True"),
        ("$(eval '\"$(var who)\" == \"you\"')", "False"),
        ('$(eval "\'$(env NOT_SET_HERE none)\' != \'none\'")', "False"),
        (r"$(eval 'len(\'it\') ')", "2"),
        ("$(eval \"time.strftime('year')\" time)", "year"),
    ],
)
def test_substitutions(text: str, expected: str, context: Context) -> None:
    assert perform(text, context) == expected


def test_quotes_do_not_nest(context: Context) -> None:
    """In launch's grammar the other quotation mark inside a quoted argument is a plain character."""
    assert perform("""$(var missing "it's $(var missing it's)")""", context) == "it's it's"
    with pytest.raises(ConfigError, match="not an expression"):
        perform("""$(eval "'$(env NOT_SET_HERE '')' == ''")""", context)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("$(var missing)", "unknown launch argument in .* 'missing'; valid: empty, n, who, yes"),
        ("$(nothing here)", "unknown substitution 'nothing'; valid: all, and,"),
        ("$(env NOT_SET_HERE)", "NOT_SET_HERE.* not set"),
        ("$(var who", r"\) expected"),
        ("$(var )", "an argument is missing"),
        ("$(var 'who)", "' expected"),
        ("$(eval a == b c)", r"1 to 2 arguments expected, 4 given; put an argument that has spaces into quotes"),
        ("$(dirname x)", "0 arguments expected"),
        ("$( var who)", r"a name must follow"),
        ("$(not maybe)", "'maybe' is no truth value"),
    ],
)
def test_mistakes_are_named(text: str, problem: str, context: Context) -> None:
    with pytest.raises(ConfigError, match=problem):
        perform(text, context)


def test_a_command_line_is_split_but_what_substitutions_yield_is_not(context: Context) -> None:
    context.configurations["spaced"] = "a b"
    words = substitution.split_command("run $(var spaced) 'one two' pre$(var n)post last")
    assert [substitution.perform(word, context) for word in words] == ["run", "a b", "one two", "pre3post", "last"]
    with pytest.raises(ConfigError, match="No closing quotation"):
        substitution.split_command("run 'open")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'a' == 'a' and not False", "True"),
        ("'x' if 2 < 3 <= 3 else 'y'", "x"),
        ("'a' in ['a', 'b'] or nonsense", "True"),
        ("int('3') * 2.5 - -1", "8.5"),
        ("0 or 'fallback'", "fallback"),
        ("7 // 2 % 2", "1"),
        ("max(1, 2) + len('abc')", "5"),
    ],
)
def test_eval_agrees_with_python(text: str, value: str) -> None:
    assert expression.evaluate(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "().__class__",
        "open('/etc/passwd').read()",
        "[x for x in range(3)]",
        "lambda: 1",
        "'a' * 10**9",
        "2 ** 99999999",
        "name",
        "time.sleep(1)",
        "f'{1}'",
        "1 +",
        "1 / 0",
        "int('x')",
        "(" * 500 + "1" + ")" * 500,
        "1 < 'a'",
        "1" * 3000,
        "x := 1",
    ],
)
def test_eval_refuses_everything_else(text: str) -> None:
    with pytest.raises(ConfigError, match="eval"):
        expression.evaluate(text)


@given(st.text(max_size=40))
def test_any_text_survives_escaping(text: str) -> None:
    escaped = text.replace("\\", "\\\\").replace("$(", "\\$(")
    assert substitution.parse(escaped) == (text,)


@given(st.text(alphabet="$()'\"\\ avr", max_size=30))
def test_parsing_ends_in_parts_or_a_named_error(text: str) -> None:
    try:
        parts = substitution.parse(text)
    except ConfigError:
        return
    assert all(isinstance(part, (str, substitution.Call)) for part in parts)
