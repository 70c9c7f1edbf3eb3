"""docker-compose.yml and .env.example, as far as they can be held without starting anything."""

from __future__ import annotations

import re

import pytest

from bridge.local.artifacts import KAFKA_VERSION, REGISTRY_VERSION
from bridge.local.kafka import PROPERTIES
from bridge.settings import SECRETS, Settings
from consumers.analytics.settings import Settings as AnalyticsSettings
from consumers.auto_reply.settings import Settings as AutoReplySettings
from tests.deploy.description import OURS, ROOT, MissingVariableError, compose, named_variables, services

REQUIRED = {"BRIDGE_APP_SECRETS": "one=1234", "BRIDGE_VERIFY_TOKEN": "token", "ANALYTICS_TOKEN": "token"}
SETTINGS = {
    *(f"BRIDGE_{name.upper()}" for name in Settings.model_fields),
    *(f"BRIDGE_{name.upper()}_FILE" for name in SECRETS),
    *(kind.variable(name) for kind in (AnalyticsSettings, AutoReplySettings) for name in kind.model_fields),
}
SERVICES = compose(REQUIRED)["services"]
MANAGEMENT_PORT = Settings.model_fields["management_port"].default

each_of_ours = pytest.mark.parametrize("name", services(compose(REQUIRED)))


def env_example(beginning: str) -> dict[str, str]:
    """The variables of .env.example whose lines begin so."""
    text = (ROOT / ".env.example").read_text("utf-8")
    return dict(re.findall(rf"^{beginning}([A-Z_]+)=(.*)$", text, flags=re.MULTILINE))


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("empty", [True, False])
def test_compose_without_a_secret_does_not_start_and_says_where_to_set_it(name: str, *, empty: bool) -> None:
    """No secret has a default: without it nothing starts, and one line says what to do."""
    given = REQUIRED | {name: ""} if empty else {other: REQUIRED[other] for other in REQUIRED if other != name}
    with pytest.raises(MissingVariableError, match=rf"{name}: set it in \.env, .*\.env\.example"):
        compose(given)


@each_of_ours
def test_every_variable_of_our_services_is_a_setting(name: str) -> None:
    """A misspelt one would stop the start, or leave a default in force."""
    environment = services(compose(REQUIRED | env_example("#")))[name].environment
    assert environment.keys() - {"PATH", "PYTHONDONTWRITEBYTECODE"} <= SETTINGS


def test_env_example_holds_what_compose_and_the_bridge_take_and_nothing_else() -> None:
    """What must be set stands there empty, all else as a comment; `bridge --env-file` refuses none of it."""
    assert set(env_example("")) == REQUIRED.keys()
    assert not any(env_example("").values())
    optional = set(env_example("#"))
    assert named_variables() <= REQUIRED.keys() | optional
    assert {name for name in optional if name.startswith("BRIDGE_")} <= SETTINGS
    assert {name for name in optional if not name.startswith("BRIDGE_")} <= named_variables()


def test_only_the_webhook_and_the_page_are_published_and_only_to_this_machine() -> None:
    """Neither Kafka nor the registry nor the management port can be reached from outside, and nothing from the network."""
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"bridge": ["127.0.0.1:8080:8080"], "analytics": ["127.0.0.1:8082:8082"]}
    assert str(MANAGEMENT_PORT) not in str(published)


@each_of_ours
def test_our_services_can_do_little_and_write_nowhere_else(name: str) -> None:
    """A read-only file system, no capabilities, no new privileges; a volume and /tmp are all that can be written to."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"] == ["/tmp"]  # noqa: S108 - the container's own
    writable = [volume for volume in service.get("volumes", ()) if not volume.endswith(":ro")]
    volumes = {"bridge": "spool:/var/spool/instagram-bridge", "analytics": "analytics:/var/lib/instagram-analytics"}
    assert writable == [volumes[name]] if name in volumes else not writable


def test_one_service_builds_the_image_that_all_of_ours_run() -> None:
    """Two builds of one name collide on a machine that has none yet; and nobody looks for our image on the internet."""
    ours = {name: service for name, service in SERVICES.items() if service["image"] == OURS}
    assert [name for name, service in ours.items() if "build" in service] == ["bridge"]
    assert {service["pull_policy"] for name, service in ours.items() if name != "bridge"} == {"never"}
    assert SERVICES["bridge"]["pull_policy"] == "build"


def test_files_that_services_mount_exist() -> None:
    """Docker would make a folder of a missing one, and the program would read that."""
    mounted = [volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())]
    assert all((ROOT / source).is_file() for source in mounted if source.startswith("."))


def test_services_wait_for_what_they_need() -> None:
    """The bridge starts over topics and schemas that are there; nothing waits for a mere start."""
    waits = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    assert waits["bridge"].keys() == {"topics", "schemas"}
    for needed in (condition for conditions in waits.values() for condition in conditions.items()):
        once = SERVICES[needed[0]]["restart"] == "on-failure:5"
        assert needed[1] == {"condition": "service_completed_successfully" if once else "service_healthy"}


def test_bridge_is_given_longer_to_stop_than_it_may_take() -> None:
    """Docker kills when the time is over: deliveries in flight have their deadline, and so has the publisher's end."""
    defaults = {name: Settings.model_fields[name].default for name in ("shutdown_delay_ms", "publish_deadline_ms")}
    longest_s = defaults["shutdown_delay_ms"] / 1000 + 2 * (defaults["publish_deadline_ms"] / 1000 + 2)
    assert float(SERVICES["bridge"]["stop_grace_period"].removesuffix("s")) >= 2 * longest_s


def test_foreign_images_are_those_that_are_tested_here() -> None:
    """Kafka and the registry in the very versions that the tests and `bridge dev` run as packages."""
    images = {service["image"] for service in SERVICES.values()} - {OURS}
    assert images == {f"apache/kafka:{KAFKA_VERSION}", f"apicurio/apicurio-registry:{REGISTRY_VERSION}"}


def test_kafka_has_the_properties_of_the_broker_that_the_tests_run() -> None:
    """One broker, so everything of Kafka's own has one copy; what differs is where it listens and keeps its data."""
    environment = SERVICES["kafka"]["environment"]
    names = {name.removeprefix("KAFKA_").lower().replace("_", "."): name for name in environment if "HEAP" not in name}
    del names["cluster.id"]
    listening = {"log.dirs", "controller.quorum.voters"} | {name for name in names if "listener" in name}
    assert {name: environment[names[name]] for name in names.keys() - listening}.items() <= PROPERTIES.items()
    copies = {name for name in PROPERTIES if name.endswith((".replication.factor", ".min.isr"))}
    assert copies <= names.keys()
