"""`llmagent service write`: what the files say as systemd reads them, and what is refused before any is written."""

from __future__ import annotations

import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from service_support import USER, Service, command_line, read_environment, read_unit, specified, split, write

from llmagent_ros.cli.main import main
from llmagent_ros.errors import ConfigError
from llmagent_ros.launching import packages
from llmagent_ros.launching.stopping import GIVE_UP_AFTER
from llmagent_ros.launching.supervisor import WRONG_USE
from llmagent_ros.service import quoting
from llmagent_ros.service.installation import Installation, installation

TEXT = st.text(st.characters(min_codepoint=32, exclude_categories=("Cs", "Cc")), max_size=30)
ODD = "runs with 100% $HOME %h ${x}"
SCRIPT = packages.executable(packages.OWN, "llmagent")


# --- words ------------------------------------------------------------------------------------------------------


@given(TEXT.filter(bool), st.lists(TEXT))
def test_systemd_reads_the_words_of_a_command_again(program: str, words: list[str]) -> None:
    assert command_line(f"{quoting.command(['/bin/sh', program])} {quoting.arguments(words)}", {}) == [
        "/bin/sh", program, *words,
    ]  # fmt: skip


@given(st.lists(TEXT))
def test_words_survive_the_environment_file_and_their_variable(
    tmp_path_factory: pytest.TempPathFactory, words: list[str]
) -> None:
    path = tmp_path_factory.mktemp("env") / "env"
    path.write_text(f"WORDS={quoting.variable(quoting.word_list(words))}\n", encoding="utf-8")
    assert command_line("/bin/echo $WORDS", read_environment(path)) == ["/bin/echo", *words]


def test_a_shell_reads_the_environment_file_as_well() -> None:
    value = "a \"b\" 'c' $HOME `id` \\ \\$ é %h"
    script = f"x={quoting.variable(value)}; printf %s \"$x\""
    assert subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout == value


@given(TEXT)
def test_a_path_is_itself_again_or_refused(text: str) -> None:
    try:
        line, word = quoting.path_line(f"/{text}"), quoting.path_word(f"/{text}")
    except ConfigError:
        assert set("\"'\\") & set(text) or text != text.rstrip()
        return
    assert specified(line) == f"/{text}" and line == line.strip()
    assert [specified(part) for part in split(word)] == [f"/{text}"]


@pytest.mark.parametrize("function", [quoting.variable, quoting.path_line, lambda text: quoting.command(["/x", text])])
@pytest.mark.parametrize("text", ["a\nExecStartPre=/bin/evil", "a\x00", "\udcff", "a\x7f"])
def test_what_would_end_a_line_is_refused(function, text: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match="control character or is no UTF-8"):
        function(text)


# --- files ------------------------------------------------------------------------------------------------------


def test_odd_paths_and_arguments_come_out_as_they_went_in(tmp_path: Path) -> None:
    robot, out = tmp_path / f"my robot {ODD[-10:]}.yaml", tmp_path / ODD
    shutil.copy(Path(__file__).parent.parent / "config" / "robots" / "husky.yaml", robot)
    model = 'a "quoted" \\ $name 5%'
    service = write(tmp_path / "files", f"model:={model}", "--out", out, robot=robot)
    assert service.command == [
        sys.executable, str(SCRIPT), "launch", "robot", "console:=false", "log_files:=false", f"model:={model}",
        f"robot:={robot}", "part:=robot", f"out:={out}",
    ]  # fmt: skip
    assert specified(service.settings["WorkingDirectory"]) == str(out)
    assert str(out) in [specified(word) for word in split(service.settings["ReadWritePaths"])]
    lines = (service.folder / "llmagent-robot.tmpfiles.conf").read_text().splitlines()
    folders = [[specified(word) for word in split(line)] for line in lines if not line.startswith("#")]
    assert [line[:2] for line in folders] == [["d", str(out)], ["d", "/var/log/llmagent-robot"]]
    assert [line[-1] for line in folders] == ["-", "14d"]


def test_the_parts_are_services_of_their_own_and_the_guard_goes_first(tmp_path: Path) -> None:
    write(tmp_path, part="all")
    robot, compute = Service(tmp_path, "robot"), Service(tmp_path, "compute")
    assert "part:=robot" in robot.command and "part:=compute" in compute.command
    for service in (robot, compute):
        assert not {"BindsTo", "Requires", "PartOf"} & set(read_unit(service.path)["Unit"])
        assert read_unit(service.path)["Install"] == {"WantedBy": "multi-user.target"}
    assert int(robot.settings["CPUWeight"]) > int(compute.settings["CPUWeight"])
    assert int(robot.settings["OOMScoreAdjust"]) < 0 < int(compute.settings["OOMScoreAdjust"])
    assert int(robot.settings["Nice"]) < int(compute.settings.get("Nice", 0))


def test_the_unit_lets_the_launch_stop_its_nodes_and_gives_up_on_a_wrong_configuration(tmp_path: Path) -> None:
    settings = write(tmp_path).settings
    assert settings["KillMode"] == "mixed"  # the signal to the launch alone, or the guard is stopped before the policy
    assert float(settings["TimeoutStopSec"]) > 2 * GIVE_UP_AFTER
    assert settings["Restart"] == "on-failure" and settings["RestartPreventExitStatus"] == str(WRONG_USE)
    assert settings["Type"] == "exec"


def test_models_come_from_the_cache_of_the_user(tmp_path: Path) -> None:
    """As huggingface_hub itself finds it, whoever else reads XDG_CACHE_HOME; and a download needs to write there."""
    service = write(tmp_path, part="compute")
    command = [sys.executable, "-c", "from huggingface_hub.constants import HF_HOME; print(HF_HOME, end='')"]
    by_hand, of_service = (
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        for environment in ({"HOME": pwd.getpwnam(USER).pw_dir}, service.environment)
    )
    assert of_service == by_hand
    assert service.settings["ProtectHome"] == "read-only"
    assert f"-{by_hand}" in split(service.settings["ReadWritePaths"]), "and it is not there on every machine"


def test_nothing_of_a_killed_process_is_shared(tmp_path: Path) -> None:
    service = write(tmp_path)
    assert service.environment["FASTDDS_BUILTIN_TRANSPORTS"] == "UDPv4"
    assert "/tmp" in split(service.settings["ReadWritePaths"]) and "PrivateTmp" not in service.settings


def test_network_and_user_are_those_that_were_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "41")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    service = write(tmp_path, "--discovery", "SUBNET", "--peers", "10.0.0.1;10.0.0.2", "--name", "tb1")
    environment = Service(tmp_path, "robot", "tb1").environment
    assert environment["ROS_DOMAIN_ID"] == "41"
    assert environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "SUBNET"
    assert environment["ROS_STATIC_PEERS"] == "10.0.0.1;10.0.0.2"
    assert Service(tmp_path, "robot", "tb1").settings["User"] == USER
    assert not service.path.exists(), "another name"


def test_a_joystick_brings_its_rule_and_teleop_on_the_robot_only(tmp_path: Path) -> None:
    write(tmp_path, "--joystick", part="all")
    assert "teleop:=true" in Service(tmp_path, "robot").command
    assert "teleop:=true" not in Service(tmp_path, "compute").command
    assert 'ENV{ID_INPUT_JOYSTICK}=="1"' in (tmp_path / "70-llmagent-joystick.rules").read_text()


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze here")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    out = tmp_path / ODD
    write(tmp_path, "--out", out, part="all")
    for part in ("robot", "compute"):
        path = Service(tmp_path, part).path
        command = ["systemd-analyze", "verify", "--man=no", str(path)]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        said = [line for line in (answer.stdout + answer.stderr).splitlines() if path.stem in line]
        assert (answer.returncode, said) == (0, [])


# --- what is printed and refused --------------------------------------------------------------------------------


def test_every_file_has_its_command_and_a_dry_run_writes_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "files"
    write(folder, "--dry-run", "--joystick", part="all")
    assert not folder.exists()
    dry = capsys.readouterr().out
    write(folder, "--joystick", part="all")
    told = capsys.readouterr().out
    for path in folder.iterdir():
        assert path.read_text() in dry
        assert sum(f"sudo install -m 644 {path} /etc/" in line for line in told.splitlines()) == 1
    assert told.splitlines()[-1].strip() == (
        "sudo systemctl enable --now llmagent-robot.service llmagent-compute.service"
    )
    assert told[told.index("    sudo") :] == dry[dry.index("    sudo") :]


def test_what_was_changed_by_hand_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    service = write(tmp_path)
    path, text = service.path, service.path.read_text()
    write(tmp_path)
    assert capsys.readouterr().out.count(": as it was\n") == 3
    path.write_text(text + "# mine\n")
    write(tmp_path, "record:=true", code=2)
    assert "other contents of llmagent-robot.service, llmagent-robot.env; --force" in capsys.readouterr().err
    assert path.read_text() == text + "# mine\n" and "record" not in service.environment["LLMAGENT_ARGUMENTS"]
    write(tmp_path, "--force")
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--part", "half"], "unknown part 'half'; valid: all, compute, robot"),
        (["--robot", "toaster"], "unknown robot contract 'toaster'; valid: husky, "),
        (["--user", "nobody-of-that-name"], "unknown user 'nobody-of-that-name'; valid: "),
        (["speling:=1"], "unknown launch argument of robot.launch.xml 'speling'; valid: "),
        (["learn:=maybe"], "'maybe'; valid: false, true"),
        (["out:=elsewhere"], "launch argument 'out:=elsewhere': the unit gives robot, part, out itself"),
        (["--out", "it's"], "cannot stand in a unit; valid: a path without quotes"),
        (["--domain", "233"], "domain"),
        (["--discovery", "OFF"], "'SUBNET', 'LOCALHOST' or 'SYSTEM_DEFAULT'"),
        (["--name", "A b"], "name 'A b'; valid: a to z, 0 to 9 and -"),
        (["another"], "valid: one folder"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    tmp_path: Path, words: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "files", *words, code=2)
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert problem in captured.err
    assert not (tmp_path / "files").exists()


def test_an_unknown_action_lists_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["service", "install", "--robot", "husky", "--part", "all"]) == 2
    assert capsys.readouterr().err == "llmagent: unknown action 'install'; valid: write\n"


# --- how the installation is started ----------------------------------------------------------------------------


def test_an_installed_ros_comes_first_then_the_environment_then_workspaces(tmp_path: Path) -> None:
    ros, venv, under, over = (tmp_path / name for name in ("ros", "venv", "under", "over"))
    for prefix in (ros, under, over):
        prefix.mkdir()
        (prefix / "setup.bash").touch()
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "activate").touch()
    environment = {
        "AMENT_PREFIX_PATH": f"{over}/isolated_package:{over}:{under}:{ros}",
        "COLCON_PREFIX_PATH": f"{over}:{under}",
    }
    found = installation(SCRIPT, environment, str(venv), "/usr")
    assert found.setups == (
        ros / "setup.bash", venv / "bin" / "activate", under / "setup.bash", over / "setup.bash",
    )  # fmt: skip
    without = installation(SCRIPT, environment, "/usr", "/usr")
    assert without.setups == (ros / "setup.bash", under / "setup.bash", over / "setup.bash")


def test_what_lies_in_the_virtual_environment_needs_no_setup_file(tmp_path: Path) -> None:
    (tmp_path / "setup.bash").touch()
    assert installation(SCRIPT, {"AMENT_PREFIX_PATH": str(tmp_path)}, str(tmp_path), "/usr").setups == ()
    assert installation(SCRIPT, {}, str(tmp_path), "/usr").command(["x"]) == [sys.executable, str(SCRIPT), "x"]


def test_the_shell_becomes_the_program_so_that_signals_reach_it(tmp_path: Path) -> None:
    (tmp_path / "set up.bash").write_text("export SAID='by the setup file'\ntrap true EXIT\n")
    script = tmp_path / "script.py"
    script.write_text("import os, sys; print(os.getpid(), os.environ['SAID'], sys.argv[1:], flush=True)")
    words = Installation(Path(sys.executable), script, (tmp_path / "set up.bash",)).command(["two words", "$HOME"])
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        told, _ = process.communicate(timeout=60)
    assert told == f"{process.pid} by the setup file ['two words', '$HOME']\n"
