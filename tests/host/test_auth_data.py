"""Credentials between plugins, files and the proxy: what is kept, what is refused, what nobody may see."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.abi import wire
from cpa.abi.kinds import encode_any
from cpa.config.load import parse_config
from cpa.credentials.files import CredentialFile, CredentialFileError, CredentialFiles
from cpa.credentials.from_config import auth_index
from cpa.credentials.model import FROM_FILE, Credential
from cpa.host.auth_data import (
    MAX_ID_CHARS,
    Origin,
    credential_of,
    credential_of_file,
    file_name_of,
    holds,
    host_summary,
    merged_refresh,
    merged_storage,
    prefix_of,
    save_auth_data,
    save_refreshed,
    secrets_in,
    updated,
)
from cpa.types import JsonObject

ORIGIN = Origin(id="acme-me.json", index="0123456789abcdef", provider="acme", path="/auths/acme-me.json")
LATER = datetime(2026, 8, 22, 13, tzinfo=UTC)


def data(**fields: Any) -> wire.AuthData:
    """What a plugin of provider acme says."""
    return wire.AuthData(**{"provider": "acme", **fields})


def a_file(tmp_path: Path, members: JsonObject, name: str = "acme-me.json") -> CredentialFile:
    """The only file of a folder."""
    (tmp_path / name).write_text(json.dumps(members))
    (file,) = CredentialFiles(tmp_path).list()
    return file


# -- the host's summary --


def test_the_summary_is_what_the_contract_names() -> None:
    """Keys in lower case, empty lists left out."""
    text = """
auth-dir: /srv/auths
proxy-url: http://user:pass@proxy.test:1
force-model-prefix: true
oauth-model-alias: {Acme: [{name: big, alias: b, fork: true}]}
oauth-excluded-models: {Acme: ["*-preview"]}
"""
    summary = host_summary(parse_config(text, file="c.yaml").config)
    assert summary == wire.HostSummary(
        auth_dir="/srv/auths",
        proxy_url="http://user:pass@proxy.test:1",
        force_model_prefix=True,
        oauth_model_alias={"acme": (wire.ModelAlias(name="big", alias="b"),)},
        excluded_models={"acme": ["*-preview"]},
    )
    assert "pass" not in repr(summary)


def test_an_empty_configuration_has_an_empty_summary() -> None:
    """Maps that the wire shows as null."""
    summary = host_summary(parse_config("", file="c.yaml").config)
    assert (summary.oauth_model_alias, summary.excluded_models) == ({}, {})
    assert summary.auth_dir.endswith("/.cli-proxy-api")


# -- what is kept --


@pytest.mark.parametrize(
    ("storage", "metadata", "kept"),
    [
        (b"", {}, {"type": "acme"}),
        (b"null", {"b": 1}, {"b": 1, "type": "acme"}),
        (b'{"type":"x","token":"t","z":[1]}', {"token": "t2"}, {"token": "t2", "type": "acme", "z": [1]}),
        (b' {"n": 12345678901234567890}\n', {}, {"n": 12345678901234567890, "type": "acme"}),
    ],
)
def test_metadata_lie_over_storage_and_the_type_over_both(storage: bytes, metadata: JsonObject, kept: Any) -> None:
    """In the order of keys, as the contract has it."""
    merged = merged_storage(storage, metadata, provider="acme")
    assert merged == kept
    assert list(merged) == sorted(merged)


@pytest.mark.parametrize("storage", [b"[]", b"1", b'"x"', b"{", b"\xff", b"[" * 100_000])
def test_storage_that_is_no_object_is_refused(storage: bytes) -> None:
    """When it is to be saved; nothing is guessed."""
    with pytest.raises(CredentialFileError, match="invalid auth json"):
        merged_storage(storage, {}, provider="acme")


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"file_name": "acme-me.json", "id": "other"}, "acme-me.json"),
        ({"id": "me@example.org"}, "me@example.org.json"),
        ({"id": "acme-me.json"}, "acme-me.json"),
        ({}, "acme.json"),
        ({"id": "../../etc/passwd"}, "etc-passwd.json"),
        ({"id": "a/b\\c:d\0e\n"}, "a-b-c-d-e.json"),
        ({"id": "…"}, "acme.json"),
        ({"id": "x" * 1_000_000}, "x" * 250 + ".json"),
    ],
)
def test_names_of_files_are_harmless(fields: dict[str, str], name: str) -> None:
    """Those of plugins are taken as they are; made ones hold nothing that a file system could understand."""
    assert file_name_of(data(**fields), "acme") == name


@pytest.mark.parametrize(
    "name", ["../a.json", "/etc/a.json", "a\\b.json", "a.txt", ".json", "a\0.json", "x" * 300 + ".json"]
)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    """And nothing is written anywhere."""
    folder = tmp_path / "auths"
    with pytest.raises(CredentialFileError):
        save_auth_data(CredentialFiles(folder), data(file_name=name, storage_json=b"{}"))
    assert not folder.exists()
    assert not list(tmp_path.iterdir())


def test_a_saved_credential_can_be_read_again(tmp_path: Path) -> None:
    """Sorted, private, and the type is the provider's."""
    files = CredentialFiles(tmp_path)
    path = save_auth_data(files, wire.AuthData(storage_json=b'{"token":"t"}', metadata={"a": 1}), provider=" Acme ")
    assert path == tmp_path / "acme.json"
    assert path.read_bytes() == b'{"a":1,"token":"t","type":"acme"}'
    assert path.stat().st_mode & 0o777 == 0o600


def test_nothing_is_written_if_the_file_says_the_same(tmp_path: Path) -> None:
    """However it is written there; true is not 1."""
    path = tmp_path / "acme.json"
    path.write_text('{ "type": "acme",\n "on": true }')
    before = path.stat()
    files = CredentialFiles(tmp_path)
    save_auth_data(files, data(storage_json=b'{"on":true}'))
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    save_auth_data(files, data(storage_json=b'{"on":1}'))
    assert json.loads(path.read_text())["on"] == 1
    assert path.stat().st_ino != before.st_ino
    assert not holds(tmp_path / "missing.json", b"{}")


@pytest.mark.parametrize("provider", ["", "   ", "x" * (MAX_ID_CHARS + 1), "a\nb"])
def test_a_credential_needs_a_sensible_provider(tmp_path: Path, provider: str) -> None:
    """Nobody could ever use it."""
    with pytest.raises(CredentialFileError, match="auth provider"):
        save_auth_data(CredentialFiles(tmp_path), wire.AuthData(provider=provider))


def test_a_weight_that_no_scheduler_can_use_is_refused(tmp_path: Path) -> None:
    """As for `host.auth.save`."""
    with pytest.raises(CredentialFileError, match="weight"):
        save_auth_data(CredentialFiles(tmp_path), data(metadata={"weight": "heavy"}))


# -- to credentials --


def test_a_plugins_record_becomes_a_credential() -> None:
    """With what the proxy needs, and what the plugin gets to see again."""
    record = data(
        id="acme-me.json",
        label=" me ",
        prefix="/team/",
        proxy_url="socks5://p:1",
        storage_json=b'{"token":"secret-of-storage"}',
        metadata={"refresh_interval": 60, "priority": 7, "weight": "3", "headers": {"X-Team": "blue"}},
        attributes={"base_url": "http://h/v1/", "api_key": "key-of-attributes"},
        next_refresh_after=LATER,
    )
    credential = credential_of(record, ORIGIN)
    assert (credential.id, credential.provider, credential.label, credential.index) == (
        *("acme-me.json", "acme"),
        *("me", ORIGIN.index),
    )
    assert (credential.prefix, credential.proxy_url, credential.base_url) == ("team", "socks5://p:1", "http://h/v1")
    assert (credential.api_key, credential.priority, credential.weight) == ("key-of-attributes", 7, 3)
    assert (credential.source, credential.path, credential.virtual) == (FROM_FILE, "/auths/acme-me.json", False)
    assert credential.headers == {"X-Team": "blue"}
    assert credential.metadata["type"] == "acme"
    assert json.loads(credential.storage_json)["token"] == "secret-of-storage"
    assert json.loads(credential.storage_json)["refresh_interval"] == 60
    assert credential.attributes["path"] == credential.attributes["source"] == "/auths/acme-me.json"
    assert credential.attributes["source_backend"] == "file"
    assert credential.next_refresh_after == LATER
    assert {"secret-of-storage", "key-of-attributes"} <= set(credential.secrets())
    assert "secret-of-storage" not in repr(credential)
    assert "key-of-attributes" not in repr(credential)


def test_what_is_missing_has_defaults() -> None:
    """Provider and id of the file; a label from the e-mail address."""
    credential = credential_of(wire.AuthData(metadata={"email": "me@x"}), ORIGIN)
    assert (credential.id, credential.provider, credential.label) == ("acme-me.json", "acme", "me@x")
    assert (credential.priority, credential.weight, credential.disabled) == (0, 1, False)
    assert credential.next_refresh_after is None
    assert credential_of(wire.AuthData(), ORIGIN).label == "acme"


@pytest.mark.parametrize(
    ("record", "origin"),
    [
        (data(disabled=True), ORIGIN),
        (data(), attrs.evolve(ORIGIN, disabled=True)),
        (data(storage_json=b'{"disabled":true}'), ORIGIN),
    ],
)
def test_whoever_says_disabled_is_heard(record: wire.AuthData, origin: Origin) -> None:
    """The plugin, the operator, the file."""
    assert credential_of(record, origin).disabled


def test_virtual_credentials_have_indexes_of_their_own() -> None:
    """They cannot be told apart by their file."""
    one, two = (credential_of(data(id=f"me#{number}"), ORIGIN, virtual=True) for number in (1, 2))
    assert (one.index, two.index) == (auth_index("id:me#1"), auth_index("id:me#2"))
    assert one.virtual


@pytest.mark.parametrize("identifier", ["x" * 1_000_000, "a\nb", "a\0"])
def test_senseless_ids_are_refused(identifier: str) -> None:
    """They would stand in every list and log."""
    with pytest.raises(CredentialFileError, match="auth id"):
        credential_of(data(id=identifier), ORIGIN)


def test_hostile_members_are_no_settings() -> None:
    """Wrong types, line breaks in headers, giant numbers: as if they were not there."""
    members: JsonObject = {
        "priority": True,
        "weight": 10**30,
        "label": ["x"],
        "prefix": "a/b",
        "headers": {"X-A": "a\r\nEvil: 1", "Bad Name": "x", "X-B": [7], "X-C": "fine"},
        "excluded_models": [[1], " A-* ", "", None],
        "access_token": "t\nx",
    }
    credential = credential_of(data(metadata=members), ORIGIN)
    assert (credential.priority, credential.weight, credential.label) == (0, 1, "acme")
    assert (credential.prefix, credential.api_key) == ("", "")
    assert credential.headers == {"X-C": "fine"}
    assert credential.excluded_models == ("a-*",)


@pytest.mark.parametrize("members", [{"proxy_url": "http://h\r\nx"}, {"disabled": "yes"}, {"proxy-url": 7}], ids=repr)
def test_what_keeps_a_credential_from_being_used_wrongly_is_not_ignored(members: JsonObject) -> None:
    """A key must not go another way than the one that somebody meant to write down."""
    with pytest.raises(CredentialFileError, match=r"proxy_url|disabled"):
        credential_of(data(metadata=members), ORIGIN)


def test_attributes_are_settings_too() -> None:
    """As upstream's native executors know them."""
    attributes = {"header:X-A": "1", "excluded_models": "a, B", "priority": "4", "weight": "-3"}
    credential = credential_of(data(attributes=attributes), ORIGIN)
    assert credential.headers == {"X-A": "1"}
    assert credential.excluded_models == ("a", "b")
    assert (credential.priority, credential.weight) == (4, 0)


def test_a_file_without_parser_is_its_own_metadata(tmp_path: Path) -> None:
    """The whole object, and the file's members are honoured."""
    file = a_file(
        tmp_path,
        {
            "type": "Acme",
            "token": "a-long-token",
            "prefix": "p",
            "proxy_url": "direct",
            "priority": 2,
            "weight": 5,
            "label": "L",
            "disabled": True,
            "excluded_models": ["X*"],
        },
    )
    credential = credential_of_file(file)
    assert (credential.id, credential.provider, credential.index) == ("acme-me.json", "acme", file.index)
    assert (credential.prefix, credential.proxy_url, credential.label) == ("p", "direct", "L")
    assert (credential.priority, credential.weight, credential.disabled) == (2, 5, True)
    assert credential.excluded_models == ("x*",)
    assert credential.metadata == {**file.members, "type": "acme"}
    assert json.loads(credential.storage_json) == credential.metadata
    assert "a-long-token" in credential.secrets()


def test_a_file_without_type_is_nobodys(tmp_path: Path) -> None:
    """Not even of a provider of the name that stands for none."""
    with pytest.raises(CredentialFileError, match="provider"):
        credential_of_file(a_file(tmp_path, {"token": "t"}))


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"access_token": "12345678", "note": "nothing secret"}, ["12345678"]),
        ({"token": {"value": "12345678", "kind": "x"}}, ["12345678"]),
        ({"keys": [{"client_secret": "87654321"}]}, ["87654321"]),
        ({"token_type": "Bearer", "token_uri": "https://example.org/token", "tokens": 5}, []),
        ({"password": "short"}, []),
    ],
)
def test_secrets_are_found_by_their_names(value: JsonObject, found: list[str]) -> None:
    """So that they are masked wherever a provider repeats them."""
    assert list(secrets_in(value)) == found


def test_deep_nesting_is_no_way_to_hide_or_to_crash() -> None:
    """What plugins send may be nested as far as their messages may."""
    value: Any = "12345678"
    for _ in range(500):
        value = [value]
    assert list(secrets_in({"token": value})) == []


@pytest.mark.parametrize(
    ("text", "prefix"), [(" /team/ ", "team"), ("a/b", ""), ("", ""), ("x" * 600, ""), ("a\nb", "")]
)
def test_prefixes(text: str, prefix: str) -> None:
    """Proxy 2.3."""
    assert prefix_of(text) == prefix


# -- updates --


def old() -> Credential:
    """A credential in use."""
    return credential_of(
        data(label="me", prefix="p", storage_json=b'{"token":"old-token"}', metadata={"a": 1}, attributes={"k": "v"}),
        ORIGIN,
    )


def test_what_a_refresh_leaves_out_stays() -> None:
    """Field by field; index and file in any case."""
    new = updated(old(), wire.AuthData(storage_json=b'{"token":"new-token"}'), merge=False)
    assert (new.id, new.index, new.path, new.label, new.prefix) == (
        *(ORIGIN.id, ORIGIN.index, ORIGIN.path),
        *("me", "p"),
    )
    assert new.metadata == {"a": 1, "type": "acme"}
    assert new.attributes["k"] == "v"
    assert json.loads(new.storage_json) == {"a": 1, "token": "new-token", "type": "acme"}


def test_a_refresh_replaces_metadata_and_attributes_as_a_whole() -> None:
    """Plugin-abi 4.3.4."""
    new = updated(old(), wire.AuthData(metadata={"b": 2}, attributes={"x": "y"}), merge=False)
    assert new.metadata == {"b": 2, "type": "acme"}
    assert "k" not in new.attributes
    assert new.attributes["path"] == ORIGIN.path


def test_an_update_of_models_merges_them() -> None:
    """Plugin-abi 4.2.3: returned keys win, old keys are kept."""
    new = updated(old(), wire.AuthData(metadata={"b": 2}, attributes={"x": "y"}, label="you"), merge=True)
    assert new.metadata == {"a": 1, "b": 2, "type": "acme"}
    assert (new.attributes["k"], new.attributes["x"], new.label) == ("v", "y", "you")


def test_new_storage_is_not_hidden_by_old_metadata(tmp_path: Path) -> None:
    """A plugin that keeps its token in both, as a file without parser does, and renews only one."""
    credential = credential_of_file(a_file(tmp_path, {"type": "acme", "token": "old-token"}))
    new = updated(credential, wire.AuthData(storage_json=b'{"token":"new-token"}'), merge=False)
    assert new.metadata["token"] == "new-token"
    assert json.loads(new.storage_json)["token"] == "new-token"


def test_a_refresh_does_not_take_away_what_the_operator_wrote(tmp_path: Path) -> None:
    """New storage replaces a plugin's own members; how the proxy uses the file is not the plugin's business."""
    file = a_file(tmp_path, {"type": "acme", "token": "old-token", "code": "once", "note": "mine", "priority": 7})
    credential = credential_of(data(storage_json=file.raw), ORIGIN)
    new = updated(credential, wire.AuthData(storage_json=b'{"token":"new-token"}'), merge=False)
    assert json.loads(new.storage_json) == {"note": "mine", "priority": 7, "token": "new-token", "type": "acme"}
    assert new.priority == 7


def test_a_credential_stays_with_its_provider() -> None:
    """Or it would be executed, and paid for, by somebody else."""
    with pytest.raises(CredentialFileError, match="provider"):
        updated(old(), wire.AuthData(provider="claude"), merge=True)


# -- files after refreshes --


@pytest.mark.parametrize(
    ("now", "kept"),
    [
        ({"type": "acme", "token": "1", "label": "a"}, {"type": "acme", "token": "2", "label": "a", "added": True}),
        ({"type": "acme", "token": "1", "label": "b"}, {"type": "acme", "token": "2", "label": "b", "added": True}),
        ({"type": "acme", "token": "1"}, {"type": "acme", "token": "2", "added": True}),
        (
            {"type": "acme", "token": "9", "label": "a", "disabled": True},
            {"type": "acme", "token": "2", "label": "a", "added": True, "disabled": True},
        ),
    ],
)
def test_a_refresh_keeps_what_others_did_to_the_file(now: JsonObject, kept: JsonObject) -> None:
    """Changed, removed and added members of somebody else stay; those of the refresh win."""
    before: JsonObject = {"type": "acme", "token": "1", "label": "a"}
    new: JsonObject = {"type": "acme", "token": "2", "label": "a", "added": True}
    merged = merged_refresh(now, before=before, old=before, new=new)
    assert merged == kept
    assert list(merged) == sorted(merged)


def test_a_refresh_may_remove_members() -> None:
    """What the plugin knew and has dropped."""
    before: JsonObject = {"type": "acme", "token": "1", "code": "once"}
    merged = merged_refresh(before, before=before, old=before, new={"type": "acme", "token": "2"})
    assert merged == {"type": "acme", "token": "2"}


NAMES = ("a", "b", "c", "d")
OBJECTS = st.dictionaries(st.sampled_from(NAMES), st.one_of(st.booleans(), st.integers(0, 2)))


@settings(max_examples=200)
@given(now=OBJECTS, before=OBJECTS, new=OBJECTS)
def test_a_refreshed_file_has_every_change_of_the_refresh(now: Any, before: Any, new: Any) -> None:
    """And of everything else what is there now."""
    merged = merged_refresh(now, before=before, old=before, new=new)
    for name in NAMES:
        same = name in before and name in new and encode_any(before[name]) == encode_any(new[name])
        if name in new and not same:
            assert merged[name] == new[name]
        elif name in before and name not in new:
            assert name not in merged
        elif name in now:
            assert merged[name] == now[name]


def test_refreshed_files_are_replaced_whole(tmp_path: Path) -> None:
    """Or not touched at all, when nothing changed."""
    file = a_file(tmp_path, {"type": "acme", "token": "1"})
    inode = file.path.stat().st_ino
    old_bytes, new_bytes = b'{"token":"1","type":"acme"}', b'{"token":"2","type":"acme"}'
    assert save_refreshed(file.path, before=file.members, old=old_bytes, new=old_bytes) == file.raw
    assert file.path.stat().st_ino == inode
    assert save_refreshed(file.path, before=file.members, old=old_bytes, new=new_bytes) == new_bytes
    assert file.path.read_bytes() == new_bytes
    assert file.path.stat().st_ino != inode


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{"])
def test_a_file_that_is_gone_or_broken_is_left_alone(tmp_path: Path, content: bytes | None) -> None:
    """Somebody removed it on purpose, or is about to write it."""
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CredentialFileError):
        save_refreshed(path, before={}, old=b"{}", new=b'{"a":1}')
    assert path.exists() == (content is not None)
    assert content is None or path.read_bytes() == content
