"""ament_python packaging: colcon and `pip install -e` both read this."""

from __future__ import annotations

from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "llmagent_ros"
ROOT = Path(__file__).parent
NODES = (
    "sim",
    "perception",
    "policy",
    "learner",
    "knowledge",
    "guard",
    "teleop",
    "outcome",
    "recorder",
    "bag_recorder",
    "runner",
    "console",
    "compose",
)


def tree(folder: str) -> list[tuple[str, list[str]]]:
    """data_files entries that install every file below a folder into share/llmagent_ros, keeping its layout."""
    by_folder: dict[Path, list[str]] = {}
    for path in sorted((ROOT / folder).rglob("*")):
        relative = path.relative_to(ROOT)
        if path.is_file() and "__pycache__" not in relative.parts:
            by_folder.setdefault(relative.parent, []).append(str(relative))
    return [(f"share/{PACKAGE}/{parent}", files) for parent, files in by_folder.items()]


setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={
        PACKAGE: ["py.typed", "models/**/*", "service/templates/*", "experiments/**/*.yaml", "experiments/**/*.xml"]
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        *tree("launch"),
        *tree("config"),
        *tree("sim"),
    ],
    install_requires=["setuptools"],
    extras_require={"ray": ["ray>=2.40"]},  # llmagent evolve --backend ray
    python_requires=">=3.10",
    zip_safe=False,
    maintainer="llmagent_ros maintainers",
    maintainer_email="maintainers@llmagent-ros.invalid",
    description="A language model as the policy of a robot, learning while the robot works.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            f"llmagent = {PACKAGE}.cli.main:main",
            *(f"{name}_node = {PACKAGE}.nodes.start:{name}" for name in NODES),
        ],
    },
)
