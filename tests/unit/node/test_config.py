"""A configuration says what it means, or it is refused with the field at fault."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from dicom_node.config_file import load
from dicom_node.errors import ConfigError
from dicom_node.instance import Identity
from dicom_node.route import Facts, choose
from dicom_node.routing import Action, Route, Unmarked

DEPLOYED = Path(__file__).parents[3] / "deploy" / "node.toml"


def test_the_configuration_that_is_shipped_can_be_read() -> None:
    config = load(DEPLOYED)
    assert [route.action for route in config.routes] == [Action.MARK, Action.STRIP]
    assert config.routes[0].not_images is Unmarked.PASS
    assert config.routes[0].other_pixels is Unmarked.HOLD
    assert not config.routes[0].mark_quantities
    assert config.destinations[1].tls_ca == DEPLOYED.parent / "archive-ca.pem"


BASE = """
[[destination]]
name = "a"
ae_title = "A"
host = "localhost"
"""

MARKING = '[[route]]\nname="r"\ndestination="a"\naction="mark"\n'

WRONG = {
    "a misspelt field": (BASE + "prot = 1\n", "prot is not known"),
    "a misspelt table": ("[nodes]\n", r"\[nodes\] is not known"),
    "no such destination": (
        BASE + '[[route]]\nname="r"\ndestination="b"\naction="pass"\n',
        "no destination 'b'",
    ),
    "a list of what was not marked": (
        BASE + '[[route]]\nname="r"\ndestination="a"\naction="pass"\nlisting=true\n',
        "listing is for routes that mark",
    ),
    "an unknown action": (
        BASE + '[[route]]\nname="r"\ndestination="a"\naction="send"\n',
        "action = 'send'",
    ),
    "a misspelt answer about non-images": (
        BASE + MARKING + 'not_images="passs"\n',
        "not_images = 'passs'",
    ),
    "a misspelt answer about other pixels": (
        BASE + MARKING + 'other_pixels="send"\n',
        "other_pixels = 'send'",
    ),
    "a text for yes or no": (
        BASE + MARKING + 'mark_quantities="yes"\n',
        "mark_quantities = 'yes'",
    ),
    "an answer about non-images of a route that does not mark": (
        BASE + '[[route]]\nname="r"\ndestination="a"\naction="pass"\n'
        'not_images="drop"\n',
        "for routes that mark",
    ),
    "a title too long": (
        BASE.replace('"A"', '"ABCDEFGHIJKLMNOPQ"'),
        "ae_title 'ABCDEFGHIJKLMNOPQ'",
    ),
    "a port too high": (BASE + "port = 70000\n", "port 70000"),
    "a text where a list belongs": (
        BASE + '[[route]]\nname="r"\ndestination="a"\naction="pass"\nmodalities="CT"\n',
        "modalities = 'CT'",
    ),
    "a text where a number belongs": ('[node]\nmax_associations = "x"\n', "takes|'x'"),
    "a list where a table belongs": ("node = 1\n", "not a table"),
    "a table where a list belongs": ('destination = "x"\n', "not a list"),
    "a name twice": (BASE + BASE, "'a' is there twice"),
    "no TOML": ("[node", "is not TOML"),
    "TOML without end": ("a = " + "[" * 5000, "nested too deeply"),
    "an address of the page that is none": (
        BASE + '[web]\naddress = "https://[gateway.example"\n',
        "web: address",
    ),
    "a provider that is none": (
        BASE + '[web]\noidc_issuer = "https://[a"\noidc_client_id = "x"\n',
        "web: oidc_issuer",
    ),
    "a path with a NUL": ('[node]\nstate = "a\\u0000b"\n', "state = "),
    "a number where a table belongs, beside listeners": (
        "node = 1\n[[listener]]\nport = 1\n",
        "cannot be used|not a table",
    ),
    "nothing at all to connect to": (
        '[[destination]]\nname = "a"\nae_title = "A"\n',
        "host",
    ),
}


@pytest.mark.parametrize(("text", "says"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_done_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "node.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=says):
        load(path)


@pytest.mark.parametrize("number", ["1e300", "inf", "nan", "-1"])
@pytest.mark.parametrize(
    ("table", "field"),
    [
        ("[web]", "idle_minutes"),
        ("[web]", "longest_hours"),
        ('[[notify]]\nname = "n"\nurl = "https://h/"\nsecret_file = "s"', "every_s"),
        (
            '[[notify]]\nname = "n"\nurl = "https://h/"\nsecret_file = "s"',
            "backlog_min",
        ),
        (
            '[[notify]]\nname = "n"\nurl = "https://h/"\nsecret_file = "s"',
            "certificate_days",
        ),
    ],
)
def test_a_time_that_no_clock_has_is_refused(
    tmp_path: Path, table: str, field: str, number: str
) -> None:
    path = tmp_path / "node.toml"
    path.write_text(f"{table}\n{field} = {number}\n", "utf-8")
    with pytest.raises(ConfigError, match=field):
        load(path)


def test_a_route_matches_on_everything_that_it_names() -> None:
    identity = Identity(
        sop_class_uid="1.2",
        sop_instance_uid="1.2.3",
        study_instance_uid="",
        modality="CT",
        body_part="",
    )

    def route(name: str, **named: tuple[str, ...]) -> Route:
        return Route(name=name, destination="a", action=Action.PASS, **named)  # type: ignore[arg-type]

    routes = [
        route("all"),
        route("ct", modalities=("CT", "MR")),
        route("mr", modalities=("MR",)),
        route("from pacs", calling_ae_titles=("PACS",)),
        route("from another", calling_ae_titles=("OTHER",)),
        route("both", modalities=("CT",), called_ae_titles=("MARK",)),
        route("class", sop_classes=("1.2.840",)),
    ]
    facts = Facts(identity, Dataset(), calling="PACS", called="MARK")
    chosen = choose(routes, facts)
    assert [r.name for r in chosen] == ["all", "ct", "from pacs", "both"]
