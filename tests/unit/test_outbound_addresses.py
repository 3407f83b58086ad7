"""Which URLs and which addresses are asked at all."""

import random
from contextlib import suppress

import pytest

from actors.outbound import Kind, OutboundError, target
from actors.outbound.addresses import is_public
from tests.servers.internet import PUBLIC

INSIDE = [
    "0.0.0.0",  # noqa: S104 - nothing is bound to it
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.255",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.7",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:93.184.216.34",
    "::ffff:0:127.0.0.1",
    "64:ff9b::169.254.169.254",
    "64:ff9b::93.184.216.34",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:10::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:a9fe:a9fe::",
    "2606:4700::5efe:10.0.0.1",
    "2606:4700::200:5efe:10.0.0.1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700::1%eth0",
    "fec0::1",
    "ff02::1",
    "not an address",
    "",
]
OUTSIDE = [
    PUBLIC,
    "1.1.1.1",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2a00:1450::1",
    "2001:4860:4860::8888",
]


@pytest.mark.parametrize("address", INSIDE)
def test_what_leads_inside_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", OUTSIDE)
def test_what_anybody_may_reach_is_public(address: str) -> None:
    assert is_public(address)


REFUSED = [
    "",
    "pds.example.com",
    "//pds.example.com/",
    "ftp://pds.example.com/",
    "file:///etc/passwd",
    "gopher://pds.example.com/",
    "javascript:alert(1)",
    "https:/pds.example.com",
    "https://",
    "https:///path",
    "https://user@pds.example.com/",
    "https://user:password@pds.example.com/",
    "https://pds.example.com@127.0.0.1/",
    "https://pds.example.com:443@127.0.0.1/",
    "https://127.0.0.1#@pds.example.com/",
    "https://pds.example.com\\@127.0.0.1/",
    "https://pds.example.com\\.evil/",
    "https://pds.example.com /",
    " https://pds.example.com/",
    "https://pds.example.com/\r\nHost: inside",
    "https://pds.exa\tmple.com/",
    "https://pds.example.com/\x00",
    "https://pds.exämple.com/",
    "https://pds。example。com/",
    "https://ⓔxample.com/",
    "https://pds%2eexample.com/",
    "https://%31%32%37.0.0.1/",
    "https://[::1/",
    "https://::1/",
    "https://[::1]x/",
    "https://[fe80::1%25eth0]/",
    "https://[v1.x]/",
    "https://pds.example.com:/x:y/",
    "https://pds.example.com:0/",
    "https://pds.example.com:65536/",
    "https://pds.example.com:99999999/",
    "https://pds.example.com:-1/",
    "https://pds.example.com:\uff14\uff14\uff13/",
    "https://pds.example.com:443:443/",
    "https://pds..example.com/",
    "https://.example.com/",
    "https://pds.example.com./",
    "https://-pds.example.com/",
    "https://pds-.example.com/",
    "https://pds_.example.com/",
    f"https://{'a' * 64}.example.com/",
    f"https://{'a.' * 127}com/",
    f"https://pds.example.com/{'x' * 9000}",
    # What some libraries read as an address.
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.1/",
    "https://127.1/",
    "https://0177.0.0.1/",
    "https://127.0.0.0x1/",
    "https://1.2.3.4.5/",
    "https://pds.example.1/",
    "https://pds.example.0x/",
]


@pytest.mark.parametrize("url", REFUSED)
def test_an_unusual_url_is_refused(url: str) -> None:
    # Fragments are the one thing that is cut off; then what is left must be refused by its host.
    with pytest.raises(OutboundError) as caught:
        target.check(target.parse(url))
    assert caught.value.kind is Kind.REFUSED_URL
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "url",
    [
        "http://pds.example.com/",
        "ws://pds.example.com/",
        "https://pds.example.com:8443/",
        "https://pds.example.com:22/",
        "https://93.184.216.34/",
        "https://[2606:4700:4700::1111]/",
        "https://localhost/",
        "https://intranet/",
    ],
)
def test_outside_development_only_names_with_tls_and_its_port_are_asked(url: str) -> None:
    with pytest.raises(OutboundError) as caught:
        target.check(target.parse(url))
    assert caught.value.kind is Kind.REFUSED_URL


def test_parsing_gives_parts_that_mean_the_same_to_everybody() -> None:
    parsed = target.parse("HTTPS://PDS.Example.COM:443/a%20b?c=d#e")
    assert parsed == ("https", "pds.example.com", 443, "/a%20b?c=d")
    assert parsed.authority == "pds.example.com"
    assert target.parse("https://example.com?x").path == "/?x"
    assert target.parse("http://[::1]:81/").authority == "[::1]:81"


def test_parsing_survives_anything() -> None:
    chance = random.Random(5)
    pieces = [*"https://pds.example.com:443/@[]%#?\\:.-\t\n\x00é0x7f", "127.0.0.1", "::1", "//"]
    for _ in range(20_000):
        text = "".join(chance.choices(pieces, k=chance.randrange(1, 25)))
        for url in (text, f"https://{text}"):
            with suppress(OutboundError):
                parsed = target.parse(url)
                assert target.parse(parsed.url) == parsed
