"""Requests of other sites, without a token or too large are refused, and the log stays short."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from daemon.web.access import Token
from daemon.web.guard import BODY_BYTES
from daemon.web.refusals import Refusal
from tests.daemon.web.asgi import call, open_websocket, web_app

TOKEN = Token("a-token-of-more-than-twenty-letters")
REQUEST = "/api/rigs/kitchen/requests/enroll"


def test_the_page_is_given_without_a_token(tmp_path: Path) -> None:
    answer = call(web_app(tmp_path, TOKEN), "/")
    assert answer.status == 200
    assert b"<title>scentd</title>" in answer.body


def test_nothing_may_run_or_load_that_is_not_of_this_server(tmp_path: Path) -> None:
    answer = call(web_app(tmp_path), "/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["/metrics", "/api/answers/1", "/api/rigs/kitchen/requests/status"]
)
def test_without_the_token_nothing_is_told(tmp_path: Path, path: str) -> None:
    answer = call(web_app(tmp_path, TOKEN), path)
    assert answer.status == 401
    assert "Log in" in answer.json["error"]


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"authorization": f"Bearer {TOKEN.text}"}, True),
        ({"authorization": "Bearer wrong"}, False),
        ({"cookie": f"{TOKEN.cookie_name}={TOKEN.cookie}"}, True),
        ({"cookie": f"{TOKEN.cookie_name}={TOKEN.text}"}, False),
        ({"cookie": "\x7f=;=;"}, False),
    ],
)
def test_token_and_cookie_open_the_rest(
    tmp_path: Path, headers: dict[str, str], allowed: bool
) -> None:
    answer = call(web_app(tmp_path, TOKEN), "/metrics", **headers)
    assert (answer.status == 200) == allowed


def test_logging_in_sets_a_cookie_that_scripts_and_other_sites_do_not_get(tmp_path: Path) -> None:
    app = web_app(tmp_path, TOKEN)
    answer = call(app, "/api/login", method="POST", body={"token": f" {TOKEN.text} "})
    cookie = answer.headers["set-cookie"]
    assert TOKEN.text not in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    pair = cookie.partition(";")[0]
    assert call(app, "/metrics", cookie=pair).status == 200


def test_a_wrong_token_is_refused(tmp_path: Path) -> None:
    app = web_app(tmp_path, TOKEN)
    for wrong in ("", "wrong", 7, None, "\u00fc" * 30):
        answer = call(app, "/api/login", method="POST", body={"token": wrong})
        assert answer.status == 403
        assert "set-cookie" not in answer.headers
    assert app.refusals.counts[Refusal.WRONG_TOKEN] == 5


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 404),
        ({"origin": "http://localhost:8733"}, 404),
        ({"origin": "http://localhost:9999"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://[bad"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "same-origin", "origin": "http://localhost:8733"}, 404),
    ],
)
def test_a_page_of_another_site_changes_nothing(
    tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    """404 is the answer to a request that was let through: there is no such rig."""
    app = web_app(tmp_path, rig="attic")
    assert call(app, REQUEST, method="POST", body={}, **headers).status == status


def test_a_page_of_another_site_reads_nothing(tmp_path: Path) -> None:
    app = web_app(tmp_path)
    answer = call(app, "/metrics", sec_fetch_site="cross-site", sec_fetch_mode="no-cors")
    assert answer.status == 403
    assert call(app, "/", sec_fetch_site="cross-site", sec_fetch_mode="navigate").status == 200


def test_a_websocket_of_another_site_is_not_opened(tmp_path: Path) -> None:
    app = web_app(tmp_path)
    assert open_websocket(app, origin="http://localhost:8733") == 101
    assert open_websocket(app, origin="http://evil.example") == 403


def test_a_websocket_needs_the_token(tmp_path: Path) -> None:
    app = web_app(tmp_path, TOKEN)
    assert open_websocket(app) == 401
    assert open_websocket(app, cookie=f"{TOKEN.cookie_name}={TOKEN.cookie}") == 101


@pytest.mark.parametrize("host", ["evil.example", "", "localhost.evil.example:8733"])
def test_a_name_that_leads_to_this_computer_is_no_name_of_the_page(
    tmp_path: Path, host: str
) -> None:
    """A site can let its own name resolve to 127.0.0.1 and so become the same origin."""
    assert call(web_app(tmp_path), "/metrics", host=host).status == 421


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8733", "[::1]:8733", "LOCALHOST:1"])
def test_the_names_of_this_computer_are_names_of_the_page(tmp_path: Path, host: str) -> None:
    assert call(web_app(tmp_path), "/metrics", host=host).status == 200


def test_a_trusted_proxy_needs_no_token_and_states_the_name(tmp_path: Path) -> None:
    app = web_app(tmp_path, TOKEN, trusted=frozenset({"172.30.32.2"}))
    headers = {
        "host": "172.30.33.9:8733",
        "x_forwarded_host": "home.example:8123",
        "origin": "http://home.example:8123",
    }
    assert call(app, "/metrics", client="172.30.32.2", **headers).status == 200
    # Anybody else can write the same headers.
    assert call(app, "/metrics", client="192.168.1.9", **headers).status == 403
    del headers["origin"]
    assert call(app, "/metrics", client="192.168.1.9", **headers).status == 401


def test_with_only_trusted_the_proxy_alone_is_answered_and_needs_no_token(tmp_path: Path) -> None:
    """As Home Assistant wants it of the page of an app, /healthz included."""
    app = web_app(tmp_path, trusted=frozenset({"172.30.32.2"}), only_trusted=True)
    for host in ("172.30.33.9:8099", "home.example:8123"):
        assert call(app, "/metrics", client="172.30.32.2", host=host).status == 200
    for path in ("/", "/healthz", "/metrics", "/static/page.css"):
        assert call(app, path, client="172.30.33.1").status == 403


def test_a_giant_body_is_refused(tmp_path: Path) -> None:
    app = web_app(tmp_path)
    giant = b'{"label": "' + b"a" * BODY_BYTES + b'"}'
    answer = call(app, REQUEST, method="POST", raw=giant, content_type="application/json")
    assert answer.status == 413
    assert str(BODY_BYTES) in answer.json["error"]


def test_a_giant_body_that_understates_its_length_is_refused(tmp_path: Path) -> None:
    app = web_app(tmp_path)
    giant = b'{"label": "' + b"a" * BODY_BYTES + b'"}'
    for length in ("5", "nonsense"):
        answer = call(
            app,
            REQUEST,
            method="POST",
            raw=giant,
            content_type="application/json",
            content_length=length,
        )
        assert answer.status == 413


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"{}", "text/plain", 415),
        (b"a=b", "application/x-www-form-urlencoded", 415),
        (b"[]", "application/json", 400),
        (b"{", "application/json", 400),
        (b"[" * 60_000, "application/json", 400),
        (b"\xff", "application/json; charset=utf-8", 400),
    ],
)
def test_what_is_no_json_object_is_refused(
    tmp_path: Path, content: bytes, content_type: str, status: int
) -> None:
    app = web_app(tmp_path)
    answer = call(app, REQUEST, method="POST", raw=content, content_type=content_type)
    assert answer.status == status
    assert answer.json["error"]


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static//etc/passwd",
        "/static/js/../../access.py",
        "/etc/passwd",
    ],
)
def test_no_path_leads_out_of_the_pages_files(tmp_path: Path, path: str) -> None:
    assert call(web_app(tmp_path), path).status == 404


def test_the_page_works_below_a_prefix_that_a_proxy_leaves_or_removes(tmp_path: Path) -> None:
    app = web_app(tmp_path, root_path="/scent")
    for path in ("/scent/", "/", "/scent/static/page.css", "/static/page.css"):
        assert call(app, path).status == 200
    answer = call(app, "/scent")
    assert (answer.status, answer.headers["location"]) == (308, "/scent/")
    assert call(app, "/scented/").status == 404


def test_refusals_are_logged_once_and_counted(tmp_path: Path) -> None:
    app = web_app(tmp_path, TOKEN)
    with capture_logs() as logs:
        for _ in range(50):
            call(app, "/metrics")
    assert [line["kind"] for line in logs] == ["no_token"]
    assert app.refusals.counts[Refusal.TOKEN] == 50
