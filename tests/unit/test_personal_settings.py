"""The settings of a personal index: whom they name, and what they need."""

import pytest

from config.loader import ConfigError, load
from config.settings import Settings

ONE = "did:plc:abcdefghijklmnopqrstuvwx"
TWO = "did:web:alice.example"
ACCOUNTS = {"SKYSHARD_PERSONAL__ACCOUNTS": f" {ONE}, {TWO},{ONE} "}


def loaded(**changes: str) -> Settings:
    more = {f"SKYSHARD_{name.upper()}": value for name, value in changes.items()}
    return load(None, {**ACCOUNTS, **more})


def refused(**changes: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(**changes)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_accounts_are_dids_each_once() -> None:
    assert loaded().personal.parsed_accounts() == (ONE, TWO)
    assert load().personal.parsed_accounts() == ()


@pytest.mark.parametrize("handle", ["alice.example", "@alice.example"])
def test_who_names_a_handle_is_told_where_its_did_is(handle: str) -> None:
    message = refused(personal__accounts=handle)
    assert "https://alice.example/.well-known/atproto-did" in message
    assert "dig +short TXT _atproto.alice.example" in message


@pytest.mark.parametrize("text", ["alice", "did:plc:short", "did:key:zQ3s"])
def test_what_is_no_account_is_refused(text: str) -> None:
    assert f"'{text}' is no did:plc or did:web" in refused(personal__accounts=text)


@pytest.mark.parametrize("missing", ["fetcher__enabled", "fetcher__repos", "resolver__enabled"])
def test_what_it_cannot_do_without_must_be_on(missing: str) -> None:
    assert "personal.accounts needs" in refused(**{missing: "false"})


def test_a_capture_has_nobody_to_ask() -> None:
    assert "needs a relay" in refused(run__source="demo")


def test_everybody_and_a_few_are_not_to_be_had_together() -> None:
    assert "contradict" in refused(fetcher__whole_accounts="true")


def test_the_bound_holds_for_those_who_are_named() -> None:
    assert "must be at least 2" in refused(personal__max_accounts="1")
