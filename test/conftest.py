"""Settings of all tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# a machine that is busy with other tests is no failure of the code under test
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")

# before anything takes part in ROS; processes that tests start inherit it
if os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp") == "rmw_fastrtps_cpp":
    os.environ["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(Path(__file__).with_name("loopback.xml"))
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "SYSTEM_DEFAULT"  # that of the profile; LOCALHOST adds shared memory
else:
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"


@pytest.fixture
def reserved_domain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Benchmarks take a ROS domain that no other test can take before they are in it."""
    from ros_support import Domain

    domain = Domain()
    monkeypatch.setattr("llmagent_ros.experiments.bench.domain._free_domain", lambda: domain.number)
    yield
    domain.free()
