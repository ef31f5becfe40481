"""Reading YAML into dataclasses: every mistake is one line that names the culprit and the valid choices."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from llmagent_ros import config
from llmagent_ros.config import read_yaml
from llmagent_ros.errors import ConfigError, LlmAgentError, UnknownNameError


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class Inner:
    depth: int = 1
    width: int = 2


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class Outer:
    name: str
    inner: Inner = Field(default_factory=Inner)
    named: dict[str, Inner] = Field(default_factory=dict)
    maybe: Inner | None = None


def _message(values: dict[str, object]) -> str:
    with pytest.raises(ConfigError) as caught:
        config.build(Outer, values, "file.yaml")
    message = str(caught.value)
    assert message.startswith("file.yaml: ")
    assert "\n" not in message
    return message


def test_builds_nested() -> None:
    built = config.build(Outer, {"name": "a", "inner": {"depth": 3}, "named": {"x": {"width": 9}}}, "file.yaml")
    assert built == Outer("a", Inner(3, 2), {"x": Inner(1, 9)})


@pytest.mark.parametrize(
    ("values", "key", "valid"),
    [
        ({"name": "a", "nmae": "b"}, "'nmae'", "inner, maybe, name, named"),
        ({"name": "a", "inner": {"dpeth": 1}}, "'inner.dpeth'", "depth, width"),
        ({"name": "a", "named": {"x": {"dpeth": 1}}}, "'named.x.dpeth'", "depth, width"),
        ({"name": "a", "maybe": {"dpeth": 1}}, "'maybe.dpeth'", "depth, width"),
    ],
)
def test_unknown_key_lists_the_valid_ones(values: dict[str, object], key: str, valid: str) -> None:
    message = _message(values)
    assert f"unknown key {key}" in message
    assert message.endswith(f"valid: {valid}")


def test_wrong_value_names_key_and_value() -> None:
    message = _message({"name": "a", "inner": {"depth": "deep"}})
    assert "inner.depth" in message and "'deep'" in message


def test_missing_key_is_named() -> None:
    assert "name: needed, and not given" in _message({})


def test_a_long_value_is_shown_in_part() -> None:
    assert len(_message({"name": "a", "inner": {"depth": ["deep"] * 1000}})) < 250


@pytest.mark.parametrize(
    "content",
    [
        *(b"a: [1, 2", b"a: b: c", b"\t- x", b"- 1\n- 2\n", b"just text", b"", b"\xff\xfe\x00bad"),
        b"a: !!python/none x",
        *(b"a: 2024-13-45", b"a: !!bool perhaps", b'a: !!int ""', b"a: !!timestamp x", b"a: 1" + b"0" * 5000),
    ],
)
def test_malformed_yaml_is_one_line_with_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        config.read_yaml(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml"):
        config.read_yaml(tmp_path / "absent.yaml")


def test_yaml_makes_no_objects(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    marker = tmp_path / "marker"
    path.write_text(f"a: !!python/object/apply:os.mkdir ['{marker}']\n")
    with pytest.raises(ConfigError):
        config.read_yaml(path)
    assert not marker.exists()


def test_named_file(tmp_path: Path) -> None:
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    for name in ("one", "two"):
        (shipped / f"{name}.yaml").write_text("a: 1\n")
    own = tmp_path / "own.yaml"
    own.write_text("a: 1\n")
    assert config.named_file("task", "one", shipped) == shipped / "one.yaml"
    assert config.named_file("task", str(own), shipped) == own
    for wrong in ("three", str(tmp_path / "absent.yaml"), "../own", ""):
        with pytest.raises(UnknownNameError) as caught:
            config.named_file("task", wrong, shipped)
        assert str(caught.value) == f"unknown task {wrong!r}; valid: one, two"
    assert issubclass(UnknownNameError, LlmAgentError)


def test_share_dir_holds_what_ships() -> None:
    assert all((config.share_dir() / name).is_dir() for name in ("config/robots", "config/tasks", "sim/worlds"))


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3\n", "a: {b: 1, c: 2, b: 3}\n"])
def test_a_key_that_is_given_twice_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"line [13]: key '[ab]' is given twice") as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_what_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.yaml"
    path.write_text("a: " + "[" * 5000 + "]" * 5000)
    with pytest.raises(ConfigError, match="nested too deeply"):
        read_yaml(path)


def test_merged_keys_are_not_given_twice(tmp_path: Path) -> None:
    path = tmp_path / "merge.yaml"
    path.write_text("root: &r {a: 1}\nouter: {base: &b {<<: *r, a: 2}}\nmine: {<<: *b, c: 3, 1: x, '1': y}\n")
    assert read_yaml(path)["mine"] == {"a": 2, "c": 3, 1: "x", "1": "y"}


def test_a_key_that_is_a_list_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.yaml"
    path.write_text("? [1, 2]\n: 3\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_yaml(path)


def test_differences_name_what_differs_and_nothing_else() -> None:
    before = {"same": 1, "rank": 4, "model": {"name": "a", "inner": {"depth": 1}}, "gone": "x", "kind": {"a": 1}}
    now = {"same": 1, "rank": 8, "model": {"name": "a", "inner": {"depth": 2}}, "new": [1], "kind": "b"}
    assert config.differences(before, now) == [
        "gone 'x', now None",
        "kind {'a': 1}, now 'b'",
        "model.inner.depth 1, now 2",
        "new None, now [1]",
        "rank 4, now 8",
    ]
    assert config.differences(now, now) == []
