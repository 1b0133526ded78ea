"""Every rule of docs/threat_model.md, asked of a real server through a raw socket."""

import base64
import json
import os
import re
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.dashboard.conftest import read_answer

ROUTES = ["/", "/static/app.js", "/api/runs", "/api/runs/ZGlnaXRz", "/api/runs/ZGlnaXRz/curve?name=val/loss",
          "/api/runs/ZGlnaXRz/curves?name=val/loss&begin=0&end=9", "/api/runs/ZGlnaXRz.1",
          "/api/runs/ZGlnaXRz/export.csv", "/api/runs/ZGlnaXRz/media/1", "/api/stream", "/nowhere"]  # fmt: skip
NOTE = "/api/runs/ZGlnaXRz/notes"


def notes(client):
    return client.get("/api/runs/ZGlnaXRz").json["notes"]


# -- who asks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", [
    "evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.evil.example:{port}",
    "localhost.:{port}", "user@127.0.0.1:{port}", "127.0.0.1:{port}, evil.example", "0.0.0.0:{port}", "", None,
])  # fmt: skip
def test_a_request_to_another_host_is_refused(client, host):
    asked = client.raw("GET", "/api/runs", host=host and host.format(port=client.port))
    if host is None:  # HTTP/1.1 has no request without a Host: that is no HTTP
        assert client.send(asked).status == 400
        asked = asked.replace(b"HTTP/1.1", b"HTTP/1.0")
    answered = client.send(asked)
    assert answered.status == 421
    assert b"digits" not in answered.body


def test_two_hosts_are_no_host(client):
    own = f"host: {client.host}\r\n".encode()
    asked = client.raw("GET", "/api/runs").replace(own, own + b"host: evil.example\r\n")
    assert client.send(asked).status in (400, 421)


def test_the_own_names_are_answered(client):
    for host in (client.host, f"localhost:{client.port}", f"LOCALHOST:{client.port}", f"[::1]:{client.port}"):
        assert client.get("/api/runs", host=host).status == 200


def test_a_name_that_is_given_is_answered_and_no_other(serve, runs):
    from epochal.dashboard.server import Place

    client = serve(runs, place=Place(port=0, names=("gpu1.lab:443",)))
    assert client.get("/api/runs", host="gpu1.lab:443").status == 200
    assert client.get("/api/runs", host="gpu1.lab").status == 421


@pytest.mark.parametrize("origin", [
    "http://evil.example", "null", "", "https://127.0.0.1:{port}", "http://127.0.0.1", "http://127.0.0.1:1",
    "http://localhost:{port}", "http://127.0.0.1:{port}.evil.example", "http://127.0.0.1:{port}/", "file://",
])  # fmt: skip
def test_a_page_of_another_origin_is_refused(client, origin):
    origin = origin.format(port=client.port)
    assert client.get("/api/runs", origin=origin).status == 403
    assert client.post(NOTE, {"text": "mine"}, origin=origin).status == 403
    assert notes(client) == []


def test_a_change_without_an_origin_is_refused(client):
    assert client.post(NOTE, {"text": "mine"}, origin=None).status == 403
    assert notes(client) == []


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_a_browser_says_another_page_asks_for_is_refused(client, site):
    assert client.get("/api/runs", sec_fetch_site=site).status == 403
    assert client.get("/static/app.js", sec_fetch_site=site).status == 403
    assert client.get("/api/stream", sec_fetch_site=site).status == 403
    assert client.get("/", sec_fetch_site=site).status == 200  # a link to the page
    assert client.get("/api/runs", sec_fetch_site="same-origin").status == 200


def test_no_answer_allows_another_origin(client):
    for path in ("/", "/api/runs", "/nowhere"):
        for origin in ("http://evil.example", f"http://{client.host}"):
            headers = dict(client.get(path, origin=origin).headers)
            assert not [name for name in headers if name.startswith("access-control")]


# -- who is let in ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ROUTES)
def test_every_route_needs_the_cookie(client, path):
    wrong = f"{client.dashboard.access.cookie}={'0' * 64}"
    for cookie in (
        None,
        "",
        wrong,
        f"{client.dashboard.access.cookie}=",
        "epochal=1",
        f"other={client.dashboard.access.ticket}",
    ):
        answered = client.get(path, cookie=cookie)
        assert answered.status == 401
        assert b"digits" not in answered.body


@pytest.mark.parametrize("path", [NOTE, "/api/runs/ZGlnaXRz/tags", "/api/runs/ZGlnaXRz/commands"])
def test_every_change_needs_the_cookie(client, path):
    assert client.post(path, {"text": "mine"}, cookie=None).status == 401


def test_the_token_lets_in_by_a_cookie_that_scripts_and_other_sites_do_not_get(client):
    answered = client.get(f"/?token={client.dashboard.access.secrets.token}", cookie=None)
    assert answered.status == 200
    value, *flags = [part.strip().lower() for part in answered.header("set-cookie").split(";")]
    assert {"httponly", "samesite=strict", "path=/"} <= set(flags)
    assert not any(flag.startswith(("domain", "max-age", "expires")) for flag in flags)  # this host, this session
    assert answered.header("refresh") == "0; url=/"
    token = client.dashboard.access.secrets.token
    assert token.lower() not in value
    assert token.encode() not in answered.body
    assert client.get("/api/runs", cookie=answered.header("set-cookie").split(";")[0]).status == 200


@pytest.mark.parametrize("query", ["token=", "token=wrong", "token=wrong&token={token}", "token={token}x", "token=%00",
                                   "token=%ff%fe", "token={half}", "TOKEN={token}", "token={ticket}"])  # fmt: skip
def test_a_wrong_token_does_not_let_in(client, query):
    access = client.dashboard.access
    token = access.secrets.token
    asked = query.format(token=token, half=token[:20], ticket=access.ticket)
    answered = client.get(f"/?{asked}", cookie=None)
    assert answered.status in (401, 403)
    assert answered.header("set-cookie") is None


def test_the_token_counts_at_the_page_alone_and_is_no_cookie(client):
    access = client.dashboard.access
    token = access.secrets.token
    assert client.get(f"/api/runs?token={token}", cookie=None).status == 401
    assert client.get("/api/runs", cookie=f"{access.cookie}={token}").status == 401
    assert client.get("/api/runs", cookie=None, authorization=f"Bearer {token}").status == 401


def test_secrets_are_compared_in_constant_time(client, monkeypatch):
    import hmac

    from epochal.dashboard import auth

    compared = []
    compare = hmac.compare_digest
    monkeypatch.setattr(auth.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or compare(a, b))
    client.get("/?token=wrong", cookie=None)
    client.get("/api/runs", cookie=f"{client.dashboard.access.cookie}=wrong")
    access = client.dashboard.access
    assert compared == [(b"wrong", access.secrets.token.encode()), (b"wrong", access.ticket.encode())]


def test_a_new_token_comes_with_each_start_and_open_pages_go_on(serve, runs):
    first, second = serve(runs), serve(runs)
    assert first.dashboard.access.secrets.token != second.dashboard.access.secrets.token
    assert second.get(f"/?token={first.dashboard.access.secrets.token}", cookie=None).status == 403
    assert first.dashboard.access.ticket == second.dashboard.access.ticket
    third = serve(runs, forget=True)
    assert third.dashboard.access.ticket != first.dashboard.access.ticket


# -- what is asked for ------------------------------------------------------------------------------------------------

OUTSIDE = [
    "../secret", "..%2fsecret", "%2e%2e%2fsecret", "%252e%252e%252fsecret", "..%5csecret", "..%c0%afsecret",
    "%00secret", "/etc/passwd", "....//secret", "..;/secret",
]  # fmt: skip


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_path_leads_out_of_the_served_folder_however_it_is_written(own, runs, path):
    (runs.parent / "secret").mkdir()
    (runs.parent / "secret" / "run.db").write_bytes((runs / "digits" / "run.db").read_bytes())
    (runs.parent / "no page").mkdir(exist_ok=True)
    for place in (f"/static/{path}", f"/{path}", f"/api/runs/{path}", f"/api/runs/ZGlnaXRz/{path}",
                  f"/api/runs/ZGlnaXRz/media/{path}"):  # fmt: skip
        assert own.get(place).status in (404, 405), place


@pytest.mark.parametrize("below", ["../secret", "..", "/etc", "digits/../../secret", "digits/checkpoints", "", "link",
                                   "digits\0", "./digits", "DIGITS"])  # fmt: skip
def test_an_id_is_of_a_run_that_was_found_and_never_a_path(own, runs, below):
    (runs.parent / "secret").mkdir()
    (runs.parent / "secret" / "run.db").write_bytes((runs / "digits" / "run.db").read_bytes())
    for encode in (base64.urlsafe_b64encode, base64.b64encode):
        told = encode(below.encode()).decode().rstrip("=")
        assert own.get(f"/api/runs/{told or '='}").status == 404
    assert own.get("/api/runs/ZGlnaXRz").status == 200


def test_symbolic_links_out_of_the_folder_are_not_followed(serve, runs, recorded):
    os.symlink(recorded / "digits", runs / "linked folder")
    (runs / "linked store").mkdir()
    os.symlink(recorded / "digits" / "run.db", runs / "linked store" / "run.db")
    (runs / "linked log").mkdir()
    (runs / "linked log" / "run.db").write_bytes((runs / "digits" / "run.db").read_bytes())
    os.symlink("/etc/passwd", runs / "linked log" / "run.db-wal")
    os.utime(runs / "linked log" / "run.db", (1e9, 1e9))
    os.symlink("/etc", runs / "digits" / "checkpoints")
    client = serve(runs)
    found = client.runs()
    assert set(found) == {"digits", "linked log"}
    assert found["linked log"]["state"] == "unreadable"
    assert "symbolic link" in found["linked log"]["error"]
    assert client.get(f"/api/runs/{found['linked log']['id']}").status == 404
    assert client.get("/api/runs/ZGlnaXRz").json["checkpoints"] == []


def test_a_folder_that_becomes_a_link_later_is_not_followed(own, runs, recorded, tmp_path):
    assert own.get("/api/runs/ZGlnaXRz").status == 200
    (runs / "digits").rename(tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", runs / "digits")
    assert own.get("/api/runs/ZGlnaXRz").status == 404
    assert own.post(NOTE, {"text": "mine"}).status in (404, 409)


def test_only_the_files_that_were_built_are_served(serve, runs, tmp_path):
    page = tmp_path / "page"
    page.mkdir()
    (page / "index.html").write_text("<p>the page</p>")
    (page / "app.js").write_text("1")
    (tmp_path / "secret.js").write_text("2")
    client = serve(runs, static=page)
    assert client.get("/").body == b"<p>the page</p>"
    script = client.get("/static/app.js")
    assert (script.status, script.header("content-type")) == (200, "text/javascript; charset=utf-8")
    assert client.get("/static/../secret.js").status == 404
    (page / "later.js").write_text("3")
    assert client.get("/static/later.js").status == 404


# -- what is changed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [
    "text/plain", "text/plain; application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
    "application/json; charset=utf-16", "application/jsonp", "", None,
])  # fmt: skip
def test_a_change_in_anything_but_json_is_refused(client, kind):
    assert client.post(NOTE, {"text": "mine"}, content_type=kind).status == 415
    assert notes(client) == []


def test_a_form_of_a_page_changes_nothing(client):
    answered = client.post(NOTE, b"text=mine", content_type="application/x-www-form-urlencoded", x_epochal=None)
    assert answered.status == 415
    assert notes(client) == []


@pytest.mark.parametrize("value", [None, "", "0", "true"])
def test_a_change_without_our_header_is_refused(client, value):
    assert client.post(NOTE, {"text": "mine"}, x_epochal=value).status == 403
    assert notes(client) == []


def test_a_change_that_keeps_all_rules_is_done(own):
    assert own.post(NOTE, {"text": "mine"}).status == 201
    assert [note["text"] for note in notes(own)] == ["mine"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"text"', b'{"text": 1}', b'{"text": ""}', b"[" * 50_000,
                                  b'{"text": "a", "also": 1}', b"\xff\xfe{}"])  # fmt: skip
def test_a_change_that_is_none_is_refused(client, body):
    assert client.post(NOTE, body).status == 400
    assert notes(client) == []


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "BREW"])
def test_other_methods_are_refused(client, method):
    for path in ("/", "/api/runs", NOTE):
        assert client.ask(method, path, origin=f"http://{client.host}").status == 405


def test_get_changes_nothing_and_head_has_no_body(client):
    refused = client.get(NOTE)
    assert (refused.status, refused.json) == (405, {"error": "GET is not done here"})
    assert ("allow", "POST") in refused.headers
    assert client.get("/api/runs/ZGlnaXRz/commands").status == 405
    for path in ("/", "/api/runs", "/api/stream"):
        answered = client.ask("HEAD", path)
        assert (answered.status, answered.body) == (200, b"")
    assert client.post("/api/runs", {}).status == 405


def test_read_only_changes_nothing(serve, runs):
    client = serve(runs, read_only=True)
    for path, change in ((NOTE, {"text": "a"}), ("/api/runs/ZGlnaXRz/tags", {"add": ["a"]}),
                         ("/api/runs/ZGlnaXRz/commands", {"id": "12345678", "name": "stop"})):  # fmt: skip
        assert client.post(path, change).status == 403
    found = client.get("/api/runs/ZGlnaXRz").json
    assert (found["notes"], found["tags"], found["read_only"]) == ([], [], True)


# -- what is sent -----------------------------------------------------------------------------------------------------


def test_every_answer_has_the_headers_that_browsers_heed(client):
    asked = [client.get(path) for path in ROUTES if path != "/api/stream"]
    asked += [client.get("/", cookie=None), client.get("/", host="evil.example"), client.ask("BREW", "/")]
    for answered in asked:
        policy = answered.header("content-security-policy")
        assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} <= set(re.split(r"; ?", policy))
        assert "unsafe" not in policy
        for name, value in (("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer"),
                            ("cache-control", "no-store"), ("x-frame-options", "DENY")):  # fmt: skip
            assert answered.header(name) == value
        assert answered.header("server") is None


def test_names_and_notes_with_markup_stay_text(serve, runs):
    evil = "<img src=x onerror=alert(1)>"
    (runs / "digits").rename(runs / evil)
    client = serve(runs)
    one = client.id(evil)
    assert client.post(f"/api/runs/{one}/notes", {"text": evil}).status == 201
    assert client.post(f"/api/runs/{one}/tags", {"add": [evil]}).status == 200
    for path in ("/api/runs", f"/api/runs/{one}", f"/api/runs/{one}/curve?name=<script>", "/api/runs/<script>"):
        answered = client.get(path)
        assert answered.header("content-type") == "application/json"
        assert not set(b"<>&") & set(answered.body)
    found = client.get(f"/api/runs/{one}").json
    assert (found["name"], found["notes"][0]["text"], found["tags"]) == (evil, evil, [evil])
    assert "<script>alert(1)</script>" in [curve["name"] for curve in found["curves"]]
    assert found["params"]["<b>batch</b>"] == "<i>8</i>"


def test_a_refusal_repeats_no_markup(client):
    for path in ("/<script>", "/static/<script>", "/?token=<script>"):
        assert b"<script>" not in client.get(path, cookie=None).body
        assert b"<script>" not in client.get(path).body


def test_an_image_that_is_none_is_not_sent(own, runs):
    import sqlite3

    with sqlite3.connect(runs / "digits" / "run.db") as connection:
        for kind, about, data in (("image", '{"type": "text/html"}', b"<script>alert(1)</script>"),
                                  ("text", "{}", b"<script>alert(1)</script>")):  # fmt: skip
            connection.execute("INSERT INTO media (attempt, kind, name, step, epoch, time, about, data)"
                               " VALUES (1, ?, 'x', 0, 0, 0, ?, ?)", (kind, about, data))  # fmt: skip
    number = own.get("/api/runs/ZGlnaXRz/media").json["media"][0]["id"]
    assert own.get(f"/api/runs/ZGlnaXRz/media/{number}").status == 415
    assert own.get(f"/api/runs/ZGlnaXRz/media/{number + 1}").json == {"text": "<script>alert(1)</script>"}


def test_a_spreadsheet_takes_no_name_for_a_formula(own, runs):
    import sqlite3

    with sqlite3.connect(runs / "digits" / "run.db") as connection:
        connection.execute("UPDATE series SET name = '=cmd|calc' WHERE name = 'val/loss'")
    lines = own.get("/api/runs/ZGlnaXRz/export.csv?names=%3Dcmd%7Ccalc").body.decode().splitlines()
    assert len(lines) == 5
    assert all(line.startswith("'=cmd|calc,") for line in lines[1:])


# -- how much and how slowly --------------------------------------------------------------------------------------------


def test_an_oversized_body_is_refused_before_it_is_read(client):
    asked = client.raw("POST", NOTE, content_type="application/json", x_epochal="1", origin=f"http://{client.host}",
                       content_length=str(10**12))  # fmt: skip
    assert client.send(asked).status == 413
    assert notes(client) == []


def test_a_body_of_unknown_length_is_cut_off_when_it_is_too_much(client):
    asked = client.raw("POST", NOTE, content_type="application/json", x_epochal="1", origin=f"http://{client.host}",
                       transfer_encoding="chunked")  # fmt: skip
    chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
    with client.connect() as connection:
        connection.sendall(asked)
        sent = 0
        with suppress(OSError):
            while sent < 100 << 20:
                connection.sendall(chunk)
                sent += 4096
        assert sent < 100 << 20
        with suppress(OSError):
            assert read_answer(connection).status == 413
    assert notes(client) == []


def test_an_oversized_head_is_refused(client):
    for long in ({"x_long": "a" * 20_000}, {"x_long": "a" * 400_000}):
        with suppress(OSError):  # what is left of it is not read
            assert client.get("/api/runs", **long).status in (400, 431)
    assert client.get(f"/api/runs?since={'1' * 20_000}").status == 431
    assert (
        client.get("/api/runs", **{f"x{number}": "" for number in range(2000)}).status == 431
    )  # many, each of them short
    assert client.get("/api/runs").status == 200


@pytest.mark.parametrize("part", ["nothing", "head", "body"])
def test_a_slow_client_is_cut_off_and_the_others_are_served(serve, runs, monkeypatch, part):
    from epochal.dashboard.protocol import PatientProtocol

    monkeypatch.setattr(PatientProtocol, "patience", 0.5)
    client = serve(runs)
    whole = client.raw("POST", NOTE, b" " * 1000, content_type="application/json", x_epochal="1",
                       origin=f"http://{client.host}")  # fmt: skip
    begin = {"nothing": 0, "head": 20, "body": len(whole) - 900}[part]
    slow = [client.connect() for _ in range(20)]
    for connection in slow:
        connection.settimeout(0.02)
        connection.sendall(whole[:begin])
    left = set(slow)
    for place in range(begin, begin + 400):
        assert client.get("/api/runs").status == 200
        for connection in list(left):
            try:
                if part != "nothing":
                    connection.sendall(whole[place : place + 1])
                if connection.recv(1000) == b"":
                    left.discard(connection)
            except TimeoutError:
                continue
            except OSError:
                left.discard(connection)
        if not left:
            break
    assert not left
    for connection in slow:
        connection.close()
    assert notes(client) == []


def test_a_connection_that_is_used_again_has_its_time_for_each_request(serve, runs, monkeypatch):
    from epochal.dashboard.protocol import PatientProtocol

    monkeypatch.setattr(PatientProtocol, "patience", 0.6)
    client = serve(runs)
    with client.connect() as connection:
        for _ in range(6):
            connection.sendall(client.raw("HEAD", "/api/runs", connection="keep-alive"))
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            time.sleep(0.15)


def test_a_store_from_elsewhere_that_never_ends_is_given_up(serve, runs, monkeypatch):
    import sqlite3

    from epochal.dashboard import listing, served

    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(x) AS name FROM n"
    with sqlite3.connect(runs / "digits" / "run.db") as connection:
        connection.executescript(f"DROP TABLE tags; CREATE VIEW tags AS {endless};")
    os.utime(runs / "digits" / "run.db", (1e9, 1e9))
    monkeypatch.setattr(listing, "reading", lambda run: served.reading(run, 0.3))
    client = serve(runs)
    assert client.runs()["digits"]["state"] == "unreadable"


# -- the secrets' file and other machines ---------------------------------------------------------------------------------


def test_nobody_else_can_read_the_secrets(state, own):
    files = [path for path in state.rglob("*") if path.is_file()]
    assert [path.stat().st_mode & 0o777 for path in files] == [0o600]
    assert files[0].parent.stat().st_mode & 0o077 == 0
    assert json.loads(files[0].read_text())["token"] == own.dashboard.access.secrets.token


@pytest.mark.parametrize("spoil", [
    lambda file: file.chmod(0o644), lambda file: file.write_text("{}"), lambda file: file.write_text('{"key": "00"}'),
    lambda file: (file.rename(file.with_suffix(".x")), file.symlink_to(file.with_suffix(".x"))),
    lambda file: file.write_text(json.dumps({**json.loads(file.read_text()), "made": time.time() - 40 * 86400})),
])  # fmt: skip
def test_a_key_that_others_may_know_or_that_is_old_counts_no_more(state, spoil):
    from epochal.dashboard.token_file import begin, secret_file

    first = begin(Path("runs"))
    assert begin(Path("runs")).key == first.key
    spoil(secret_file(Path("runs")))
    again = begin(Path("runs"))
    assert again.key != first.key
    assert begin(Path("runs")).key == again.key


def test_without_a_place_for_the_secrets_they_are_in_memory(state, caplog):
    from epochal.dashboard.token_file import begin

    state.write_text("a file where the folder should be")
    assert len(begin(Path("runs")).key) == 32
    assert "cannot be written" in caplog.text


def test_only_this_machine_reaches_it(client):
    bound = client.dashboard.socket.getsockname()[0]
    assert bound == "127.0.0.1"


@pytest.mark.parametrize("options", [
    {"host": "0.0.0.0"}, {"host": "192.168.0.1", "certfile": Path("c.pem")}, {"host": "::"},
    {"host": "0.0.0.0", "remote": True}, {"host": "0.0.0.0", "remote": True, "certfile": Path("c.pem")},
    {"host": "example"}, {"keyfile": Path("k.pem")},
])  # fmt: skip
def test_another_address_needs_a_certificate_and_a_word_that_it_is_meant(options):
    from epochal.core.errors import ArgumentError
    from epochal.dashboard.server import Place

    with pytest.raises(ArgumentError):
        Place(**options)


def test_with_a_certificate_the_cookie_goes_through_tls_alone(serve, runs, tmp_path):
    import ssl
    import subprocess

    from epochal.dashboard.server import Place

    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1",
         "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"], capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("openssl made no certificate")
    place = Place("0.0.0.0", 0, ("here:1",), tmp_path / "cert.pem", tmp_path / "key.pem", remote=True)
    client = serve(runs, place=place)
    context = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    context.check_hostname = False
    with socket.create_connection(("127.0.0.1", client.port), timeout=20) as opened, context.wrap_socket(opened) as tls:
        tls.sendall(client.raw("GET", f"/?token={client.dashboard.access.secrets.token}", host="here:1", cookie=None))
        cookie = read_answer(tls).header("set-cookie")
    assert cookie.startswith("__Host-epochal-")
    assert "secure" in cookie.lower()
    assert client.dashboard.invitation.startswith("https://here:1/?token=")
    with pytest.raises((OSError, IndexError, ValueError)):
        client.get("/", host="here:1")


# -- what the documentation promises ----------------------------------------------------------------------------------


def test_the_threat_model_names_tests_that_are_there_and_all_of_these():
    tests = Path(__file__).parent
    known = {
        path.name: set(re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE))
        for path in tests.glob("test_*.py")
    }
    told = set(re.findall(r"`(test_\w+)`", (tests.parent.parent / "docs" / "threat_model.md").read_text()))
    assert told <= set().union(*known.values())
    itself = {"test_the_threat_model_names_tests_that_are_there_and_all_of_these"}
    what_is_allowed = {"test_the_own_names_are_answered", "test_a_change_that_keeps_all_rules_is_done",
                       "test_a_connection_that_is_used_again_has_its_time_for_each_request"}  # fmt: skip
    assert known[Path(__file__).name] - told == itself | what_is_allowed
