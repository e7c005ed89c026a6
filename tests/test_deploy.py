"""What docs/ and deploy/ tell people to use is there, and the files of deploy/ can be read by what they are for."""

import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._config import process_config, resolve_to_config_type
from dagster._core.instance.config import dagster_instance_config_schema
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._core.storage.tags import GRPC_INFO_TAG

from tests.command_help import help_of

REPOSITORY = Path(__file__).parents[1]
DEPLOY = REPOSITORY / "deploy"
INSTANCE = DEPLOY / "postgres/dagster.yaml"
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
UNITS = sorted((DEPLOY / "systemd").rglob("*.*"), key=str)
UNITS = [path for path in UNITS if path.is_file()]
SERVICES = [path for path in UNITS if path.suffix == ".service"]
FILES = [path for path in sorted(DEPLOY.rglob("*")) if path.is_file() and path.name != "clipcov.env"]
FILES = [path for path in FILES if path.suffix != ".pyc"]
CODE = [
    path
    for folder in ("clipcov_assets", "resources", "tests/end_to_end")
    for path in (REPOSITORY / folder).rglob("*.py")
]
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
OURS = {name: one for name, one in COMPOSE["services"].items() if name != "postgres"}


def words_in(paths, pattern):
    return {word for path in paths for word in re.findall(pattern, path.read_text())}


def environment():
    lines = (DEPLOY / "clipcov.env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def command_lines():
    """Name and words of every command that a unit or a container starts."""
    for path in SERVICES:
        for line in re.findall(r"^ExecStart(?:Pre)?=(.*)$", path.read_text(), re.MULTILINE):
            yield f"{path.stem}: {line.split()[0]}", shlex.split(line.replace("/opt/clipcov/.venv/bin/", ""))
    for name, service in OURS.items():
        yield f"compose {name}", started(service)


def started(service):
    """The words that a container ends up with: its command, or what its shell puts in its own place."""
    words = shlex.split(service["command"])
    return shlex.split(words[2].partition("exec ")[2]) if words[:2] == ["sh", "-c"] else words


def pods():
    """Name and words of every command that a pod or a machine of a Ray cluster starts."""
    for path in [*sorted((DEPLOY / "ray").glob("*.service")), DEPLOY / "ray/mlflow.conf"]:
        for line in re.findall(r"^ExecStart=(.+)$", path.read_text(), re.MULTILINE):
            yield f"ray {path.stem}", shlex.split(line.replace("/opt/clipcov/.venv/bin/", ""))
    values = yaml.safe_load((DEPLOY / "kubernetes/dagster_values.yaml").read_text())
    (code,) = values["dagster-user-deployments"]["deployments"]
    yield "pod code", ["dagster", "code-server", "start", *code["codeServerArgs"]]
    for name in ("mlflow", "pages"):
        *_, deployment = yaml.safe_load_all((DEPLOY / f"kubernetes/{name}.yaml").read_text())
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        yield f"pod {name}", [*container["command"], *container.get("args", ())]


def before_options(words):
    """The words that choose a command: `mlflow server`, `python -m clipcov_assets.pages`."""
    return tuple(words[: next((number for number, word in enumerate(words) if word.startswith("--")), len(words))])


MODULES = words_in([*PAGES, *FILES], r"python -m (clipcov_assets(?:\.\w+)*)")
STARTED = [(place, words) for place, words in [*command_lines(), *pods()] if words[1:2] != ["deploy/dead_runs.py"]]


@pytest.fixture(scope="module")
def helps():
    """What every command that is started or called answers to `--help`."""
    called = [("python", "-m", module) for module in sorted(MODULES)]
    return help_of(list(dict.fromkeys([*called, *(before_options(words) for _, words in STARTED)])))


@pytest.mark.parametrize("path", [*PAGES, *FILES], ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_variable_that_is_named_is_known_to_the_code(path):
    known = words_in(CODE, r"\bCLIPCOV_[A-Z_]*[A-Z]\b")
    assert words_in([path], r"\bCLIPCOV_[A-Z_]*[A-Z]\b") <= known


def test_every_module_that_a_page_or_a_file_calls_is_a_command():
    assert {"clipcov_assets.trace", "clipcov_assets.pages"} <= MODULES
    for module in MODULES:
        spec = find_spec(module)
        assert spec and spec.origin, f"{module} does not exist"
        path = Path(spec.origin)
        path = path.with_name("__main__.py") if path.name == "__init__.py" else path
        assert 'if __name__ == "__main__"' in path.read_text(), f"{module} is no command"


def test_every_command_that_a_page_calls_answers_help(helps):
    for module in MODULES:
        status, told = helps["python", "-m", module]
        assert status == 0 and "usage:" in told, f"{module}: {told}"


def test_every_job_that_a_page_launches_takes_the_config_that_is_written_there():
    from clipcov_assets.definitions import defs

    found = [
        match
        for path in PAGES
        for match in re.findall(r"dg launch --job (\w+) --config-json[ \\\n]+'(.*?)'", path.read_text())
    ]
    assert {"withdraw", "reselect", "train_and_score"} <= {job for job, _ in found}
    for job, config in found:
        assert dg.validate_run_config(defs().get_job_def(job), yaml.safe_load(config)) is not None


def test_pages_link_to_files_that_are_there():
    for page in PAGES:
        text = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_a_page_links_to_headings_that_are_there():
    text = (REPOSITORY / "docs/operations.md").read_text()
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("#")
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= headings


@pytest.fixture
def filled_in(monkeypatch):
    """The environment file, with a password that a URL cannot hold as it is."""
    told = {**environment(), "PGPASSWORD": "a secret/with signs"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)


def test_the_instance_on_postgres_is_valid_and_differs_from_the_repositorys_in_its_storage_alone(filled_in):
    own, postgres = (yaml.safe_load(path.read_text()) for path in (REPOSITORY / "dagster.yaml", INSTANCE))
    assert own.pop("storage").keys() == {"sqlite"}
    assert postgres["storage"].keys() == {"postgres"}
    schema = resolve_to_config_type(dagster_instance_config_schema())
    assert process_config(schema, postgres).success
    del postgres["storage"]
    assert own == postgres


def test_the_instance_on_postgres_takes_every_credential_from_the_environment(filled_in):
    config = yaml.safe_load(INSTANCE.read_text())["storage"]["postgres"]["postgres_db"]
    assert config.pop("scheme") == "postgresql+psycopg2"  # SQLAlchemy 2.1 chooses another driver where none is named
    assert all(value.keys() == {"env"} for value in config.values())
    assert {value["env"] for value in config.values()} <= environment().keys()
    if find_spec("dagster_postgres"):
        from dagster_postgres.utils import pg_config, pg_url_from_config

        found = process_config(resolve_to_config_type(pg_config()), {"postgres_db": config})
        assert found.success and "clipcov:a%20secret" in pg_url_from_config(found.value)


def test_the_environment_file_is_read_alike_by_services_and_a_shell_and_holds_no_secret():
    told = environment()
    script = f"set -a; . '{DEPLOY / 'clipcov.env.example'}'; set +a; env"
    sourced = subprocess.run(["sh", "-c", script], env={}, capture_output=True, text=True, check=True).stdout
    assert {f"{name}={value}" for name, value in told.items()} <= set(sourced.splitlines())
    assert [name for name in told if "PASSWORD" in name or "WEBHOOK" in name] == ["CLIPCOV_ALERT_WEBHOOK", "PGPASSWORD"]
    assert told["PGPASSWORD"] == told["CLIPCOV_ALERT_WEBHOOK"] == ""


@pytest.mark.parametrize(("place", "words"), STARTED, ids=lambda one: one if isinstance(one, str) else "")
def test_services_containers_and_pods_start_what_is_installed_with_options_that_it_knows(place, words, helps):
    if words[0] == "ray" and not find_spec("ray"):
        pytest.skip("needs Ray")
    assert Path(sys.executable).with_name(words[0]).exists(), f"{place}: no {words[0]}"
    status, told = helps[before_options(words)]
    assert status == 0, f"{place}: {told}"
    for option in [word.partition("=")[0] for word in words if word.startswith("--")]:
        assert re.search(rf"(^|[\s,/]){option}\b", told), f"{place}: {words[0]} knows no {option}"


def test_services_and_containers_run_the_same_commands():
    def essence(words):
        kept = [word for word in words if not re.match(r"(127\.0\.0\.1|0\.0\.0\.0)", word)]
        return [word for word in kept if word != "--allowed-hosts"]

    units = {place.partition(":")[0].removeprefix("clipcov-"): words for place, words in command_lines()}
    assert "dead_runs.py" in (DEPLOY / "systemd/clipcov-code.service").read_text()
    assert "dead_runs.py" in COMPOSE["services"]["code"]["command"]
    for name, service in OURS.items():
        assert essence(units[name]) == essence(started(service)), name


def test_the_workspace_leads_to_the_code_server():
    (server,) = (one["grpc_server"] for one in yaml.safe_load((DEPLOY / "workspace.yaml").read_text())["load_from"])
    words = dict(command_lines())["compose code"]
    assert (
        server["host"]["env"] in environment() and COMPOSE["services"]["daemon"]["environment"][server["host"]["env"]]
    )
    assert str(server["port"]) == words[words.index("--port") + 1]
    assert server["location_name"] == words[words.index("--location-name") + 1]
    assert find_spec(words[words.index("--module-name") + 1])


def test_services_listen_on_this_machine_alone_and_containers_are_published_there_alone():
    for path in SERVICES:
        assert "0.0.0.0" not in path.read_text()
        assert path.name == "clipcov-daemon.service" or "--host 127.0.0.1" in path.read_text()
    published = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert published and all(port.startswith("127.0.0.1:") for port in published)
    assert "ports" not in COMPOSE["services"]["code"] and "ports" not in COMPOSE["services"]["postgres"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_the_units(tmp_path):
    shutil.copytree(DEPLOY / "systemd", tmp_path / "systemd")
    for path in (tmp_path / "systemd").glob("*.service"):  # the programs are not in /opt here
        path.write_text(re.sub(r"^(ExecStart\w*)=\S+", r"\1=/bin/sh", path.read_text(), flags=re.MULTILINE))
    units = sorted(map(str, (tmp_path / "systemd").glob("clipcov*.*[et]")))
    found = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stderr) == (0, "")


def test_the_target_wants_every_service_and_each_is_part_of_it():
    target = (DEPLOY / "systemd/clipcov.target").read_text()
    assert set(re.search(r"^Wants=(.*)$", target, re.MULTILINE)[1].split()) == {path.name for path in SERVICES}
    for path in SERVICES:
        assert "WantedBy=clipcov.target" in path.read_text()


def test_containers_are_told_where_deliveries_lie_by_the_environment_file_alone_and_find_directories_there():
    places = ["CLIPCOV_CRAWLS", "CLIPCOV_EVALUATION"]
    for service in OURS.values():
        assert service["env_file"] == "clipcov.env" and not service["environment"].keys() & set(places)
        assert not any("${CLIPCOV" in volume for volume in service["volumes"])  # an address is no volume
    directories = yaml.safe_load((DEPLOY / "compose.directories.yaml").read_text())
    (volumes,) = (service["volumes"] for service in directories["services"].values())
    assert directories["services"].keys() <= OURS.keys()
    for place, volume in zip(places, volumes, strict=True):
        assert re.fullmatch(rf"\$\{{{place}:\?[\w ]+\}}:\$\{{{place}\}}(:ro)?", volume)


def test_the_image_gets_every_file_that_it_copies():
    ignored = (DEPLOY / "Containerfile.dockerignore").read_text().splitlines()
    let_in = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    for line in re.findall(r"^COPY (.*)$", (DEPLOY / "Containerfile").read_text(), re.MULTILINE):
        for source in line.split()[:-1]:
            assert (REPOSITORY / source).exists(), source
            assert any(source == one or source.startswith(f"{one}/") for one in let_in), f"{source} is ignored"


def test_a_run_that_died_with_its_code_server_is_ended_and_no_other():
    script = DEPLOY / "dead_runs.py"
    namespace = {}
    exec(compile(script.read_text(), str(script), "exec"), namespace)  # a script of deploy/, in no package

    @dg.job
    def nothing():
        pass

    def add(status, **tags):
        return instance.create_run_for_job(nothing, status=status, tags=tags).run_id

    launched = {GRPC_INFO_TAG: '{"host": "localhost"}'}
    status = dg.DagsterRunStatus
    with dg.DagsterInstance.ephemeral() as instance:
        dead = [add(one, **launched) for one in (status.STARTED, status.STARTING, status.CANCELING)]
        others = [add(status.STARTED), add(status.NOT_STARTED, **launched), add(status.SUCCESS, **launched)]
        assert set(namespace["end_dead_runs"](instance)) == set(dead)
        ended = [instance.get_run_by_id(one).status for one in dead]
        assert ended == [status.FAILURE, status.FAILURE, status.CANCELED]
        assert [instance.get_run_by_id(one).status for one in others] == [
            status.STARTED,
            status.NOT_STARTED,
            status.SUCCESS,
        ]
    assert not DefaultRunLauncher().supports_check_run_worker_health  # else Dagster would find them itself


def test_nothing_in_deploy_names_a_registrys_host_or_a_password():
    text = "\n".join(path.read_text() for path in [*FILES, REPOSITORY / "docs/operations.md"])
    images = re.findall(r"^(?:FROM|\s*image:)\s+(\S+)", text, flags=re.MULTILINE)
    assert images
    assert not [image for image in images if "." in image.rpartition("/")[0]]  # a host has a dot, a person's name none
    assert not re.search(r"--(?:extra-)?index", text)
    assert not re.search(r"PASSWORD[=:] *[\"']?\w", text)
