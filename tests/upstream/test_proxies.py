"""Proxy settings: what is accepted, what is masked, and how the environment is read."""

import ssl

import pytest

from cpa.errors import UpstreamConnectError
from cpa.upstream.proxies import EnvironmentProxies, NoProxy, mask_proxy, parse_proxy, redact_urls

TLS = ssl.create_default_context()
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "request_method")


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without proxies."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("value", "expected", "auth"),
    [
        ("http://p.test", ("http", "p.test", None), None),
        ("HTTP://p.test:3128/", ("http", "p.test", 3128), None),
        ("https://u:pw@p.test", ("https", "p.test", None), ("u", "pw")),
        ("socks5://p.test", ("socks5", "p.test", 1080), None),
        ("socks5h://u:p%40w@[::1]", ("socks5h", "::1", 1080), ("u", "p@w")),
    ],
)
def test_accepted_forms(value: str, expected: tuple[str, str, int | None], auth: tuple[str, str] | None) -> None:
    """httpx says None for the default port of http and https."""
    proxy = parse_proxy(value, setting="x", tls=TLS)
    assert (proxy.url.scheme, proxy.url.host, proxy.url.port) == expected
    assert proxy.auth == auth
    assert (proxy.ssl_context is TLS) is value.lower().startswith("https:")


@pytest.mark.parametrize(
    "value",
    [
        "p.test:80",
        "ftp://u:secret@p.test",
        "http://u:secret@",
        "http://u:secret@p.test:99999",
        "//u:secret@p",
        "http://[x",
    ],
)
def test_refused_forms_name_the_setting_and_no_password(value: str) -> None:
    with pytest.raises(UpstreamConnectError, match=r"^global proxy-url: ") as caught:
        parse_proxy(value, setting="global proxy-url", tls=TLS)
    assert caught.value.code == "invalid_proxy"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "masked"),
    [
        ("http://h:1", "http://h:1"),
        ("http://u:p@h:1", "http://u:***@h:1"),
        ("http://u:p@ss:x@h", "http://u:***@h"),
        ("http://token@h", "http://***@h"),
        ("u:p@h", "u:***@h"),
        ("nonsense", "nonsense"),
    ],
)
def test_masking(value: str, masked: str) -> None:
    assert mask_proxy(value) == masked


def test_urls_in_texts_lose_user_info_and_query() -> None:
    text = "cannot get 'https://u:pw@h.test/a?key=secret' or http://h/b?c, why?"
    assert redact_urls(text) == "cannot get 'https://***@h.test/a?***' or http://h/b?*** why?"
    assert redact_urls("no URL? none") == "no URL? none"


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "expected"),
    [
        ("", "h.test", 80, False),
        ("*", "h.test", 80, True),
        ("a, *", "h.test", 80, True),
        ("h.test", "h.test", 80, True),
        ("H.Test", "a.h.test", 80, True),
        ("h.test", "ah.test", 80, False),
        (".h.test", "h.test", 80, False),
        (".h.test", "a.h.test", 80, True),
        ("*.h.test", "a.h.test", 80, True),
        ("h.test:81", "h.test", 80, False),
        ("h.test:81", "h.test", 81, True),
        ("10.0.0.0/8", "10.2.3.4", 80, True),
        ("10.0.0.0/8", "11.2.3.4", 80, False),
        ("10.1.1.1:81", "10.1.1.1", 80, False),
        ("10.1.1.1:81", "10.1.1.1", 81, True),
        ("fd00::/8", "fd00::1", 80, True),
        ("[fd00::1]:81", "fd00::1", 81, True),
        ("[fd00::1]:81", "fd00::1", 80, False),
        ("", "127.0.0.1", 80, True),
        ("", "::1", 80, True),
        ("", "localhost", 80, True),
    ],
)
def test_no_proxy(no_proxy: str, host: str, port: int, expected: bool) -> None:
    assert NoProxy.parse(no_proxy).matches(host, port) is expected


def test_environment(environ: pytest.MonkeyPatch) -> None:
    assert EnvironmentProxies.read().urls == {}
    environ.setenv("ALL_PROXY", "socks5://a")
    environ.setenv("https_proxy", " b:1 ")
    environ.setenv("NO_PROXY", "x.test")
    read = EnvironmentProxies.read()
    assert read.urls == {"http": ("socks5://a", "ALL_PROXY"), "https": ("http://b:1", "HTTPS_PROXY")}
    assert read.no_proxy.matches("x.test", 80)
    assert "socks5" not in repr(read)
    environ.setenv("NO_PROXY", "*")
    assert EnvironmentProxies.read().urls == {}
