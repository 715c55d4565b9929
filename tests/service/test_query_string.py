"""Query strings and paths are read as the bytes that were sent."""

import pytest
from costbank_service import Settings, create_app
from costbank_service.paths import routed_path
from costbank_service.query_string import QueryParameter, parse_query
from fastapi.testclient import TestClient

from costbank.bank import Bank
from costbank.errors import UsageError

PARAMETERS = (
    QueryParameter("token", "string", ""),
    QueryParameter("token_id", "integer", ""),
    QueryParameter("k", "integer", "", default=10),
)


@pytest.mark.parametrize(
    ("query", "token"),
    [
        (b"token=king", b"king"),
        (b"token=%E4%BD", b"\xe4\xbd"),
        (b"token=%e4%bd%a0", "你".encode()),
        (b"token=%C0%AF", b"\xc0\xaf"),  # an overlong slash is two bytes, never a slash
        (b"token=%ED%A0%80", b"\xed\xa0\x80"),  # a surrogate in UTF-8 is three bytes
        (b"token=%F4%90%80%80", b"\xf4\x90\x80\x80"),
        (b"token=%FF", b"\xff"),
        (b"token=%EF%BF%BD", "\ufffd".encode()),  # U+FFFD itself stays U+FFFD
        (b"token=%00", b"\0"),
        (b"token=a+b", b"a b"),
        (b"token=a%2Bb", b"a+b"),
        (b"token=a%20b", b"a b"),
        (b"token=%2Fetc%2Fpasswd", b"/etc/passwd"),
        (b"token=a=b", b"a=b"),
        (b"token=%26", b"&"),
        (b"token=a;b", b"a;b"),
        (b"&&token=a&", b"a"),
        (b"t%6Fken=a", b"a"),
        (b"token=\xe4\xbd", b"\xe4\xbd"),  # some servers pass on bytes that are not percent-encoded
        (b"token=%25", b"%"),
    ],
)
def test_a_token_is_the_bytes_that_were_sent(query: bytes, token: bytes):
    assert parse_query(query, PARAMETERS)["token"].encode("utf-8", "surrogateescape") == token


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (b"token=", "token is empty"),
        (b"token", "token is empty"),
        (b"token=%", "'%' is not a percent-encoded byte"),
        (b"token=%4", "'%4' is not a percent-encoded byte"),
        (b"token=%zz", "'%zz' is not a percent-encoded byte"),
        (b"token=%u4f60", "'%u4' is not a percent-encoded byte"),
        (b"token=a&token=b", "token is repeated"),
        (b"token=a&token=a", "token is repeated"),
        (b"token=a&t%6fken=a", "token is repeated"),
        (b"k=1&k=1", "k is repeated"),
        (b"tokn=a", "unknown query parameter 'tokn'"),
        (b"Token=a", "unknown query parameter 'Token'"),
        (b"token[]=a", "unknown query parameter 'token[]'"),
        (b"=a", "unknown query parameter ''"),
        (b"%ff=a", r"unknown query parameter '\xff'"),
        (b"k=x", "k is 'x', not a whole number"),
        (b"k=5.0", "k is '5.0', not a whole number"),
        (b"k=1e3", "k is '1e3', not a whole number"),
        (b"k=1_000", "k is '1_000', not a whole number"),
        (b"k=+5", "k is ' 5', not a whole number"),
        (b"k=%2B5", "k is '+5', not a whole number"),
        (b"k=0x10", "k is '0x10', not a whole number"),
        (b"k=%D9%A3", "k is '٣', not a whole number"),
        (b"k=%FF", r"k is '\xff', not a whole number"),
        (b"k=%00", r"k is '\x00', not a whole number"),
        (b"k=", "k is empty"),
        (b"k=" + b"9" * 5_000, "k has 5,000 digits"),
    ],
)  # fmt: skip
def test_everything_else_is_refused_in_words(query: bytes, words: str):
    with pytest.raises(UsageError) as caught:
        parse_query(query, PARAMETERS)
    assert words in caught.value.args[0]
    assert caught.value.hint
    assert len(caught.value.args[0]) < 200


def test_near_misses_are_suggested_and_others_listed():
    for name, hint in ((b"tokn", "token"), (b"TOKEN_ID", "token_id"), (b"tokenid", "token_id"), (b"K", "k")):
        with pytest.raises(UsageError) as caught:
            parse_query(name + b"=1", PARAMETERS)
        assert caught.value.hint == f"did you mean {hint}?"
    with pytest.raises(UsageError) as caught:
        parse_query(b"page=1", PARAMETERS)
    assert caught.value.hint == "the parameters are: token, token_id, k"
    with pytest.raises(UsageError) as caught:
        parse_query(b"page=1", ())
    assert "no query parameters" in caught.value.hint


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/v1/banks", "/v1/banks"),
        (b"/v1/banks/", "/v1/banks"),
        (b"/v1/banks//", "/v1/banks/"),
        (b"/", "/"),
        (b"/v1/banks/n%65ws", "/v1/banks/news"),
        (b"/v1/banks/news%2Fnearest", "/v1/banks/news%2Fnearest"),
        (b"/v1/banks/news%2f", "/v1/banks/news%2f"),
        (b"/v1/banks/%FF", "/v1/banks/%FF"),
        (b"/v1/banks/%C0%AE", "/v1/banks/%C0%AE"),
        (b"/v1/banks/\xff", "/v1/banks/\\xff"),
        (b"/v1/banks/a+b", "/v1/banks/a+b"),
        (b"http://example.org/livez", "/livez"),
        (b"HTTPS://example.org:1/v1/banks/", "/v1/banks"),
        (b"http://example.org", "/"),
        (b"/http://example.org/livez", "/http://example.org/livez"),
    ],
)
def test_routes_match_the_path_that_was_sent(raw: bytes, path: str):
    assert routed_path(raw) == path


def test_bytes_that_are_not_utf_8_find_the_token_of_those_bytes(byte_bank: Bank):
    with TestClient(create_app(Settings(store=byte_bank.path.parents[1]))) as client:
        for token, escaped in ((b"\xe4\xbd", "%E4%BD"), (b"\xff", "%ff"), (b"\0", "%00"), (b"+", "%2B"), (b"/", "%2F")):
            body = client.get(f"/v1/banks/bytes/nearest?token={escaped}&k=2").json()
            assert byte_bank.vocab.token(body["token"]["id"]) == token
        response = client.get("/v1/banks/bytes/nearest?token=%EF%BF%BD")
        assert (response.status_code, response.json()["code"]) == (404, "token-not-found")
        response = client.get("/v1/banks/bytes/nearest?token=x%E4")
        assert response.status_code == 404
        response.json()


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("", 400, "neither token nor token_id is given"),
        ("token=the&token_id=5", 400, "both token and token_id are given"),
        ("token=a&token=b", 400, "token is repeated"),
        ("token_id=5&k=0", 400, "k is 0, but this service returns 1 to 100 neighbors"),
        ("token_id=5&k=-3", 400, "k is -3"),
        ("token_id=5&k=101", 400, "k is 101"),
        ("token_id=5&k=999999999999999999", 400, "k is 999999999999999999"),
        ("token_id=5&k=9999999999999999999", 400, "k has 19 digits"),
        ("token_id=5&limit=3", 400, "unknown query parameter 'limit'"),
        ("token_id=999999999999999999", 404, "outside the vocabulary"),
        (f"token={'a' * 20_000}", 404, "no token has 20,000 bytes"),
        (f"token={'%E4' * 5_000}", 404, "no token has 5,000 bytes"),
    ],
)
def test_mistakes_in_a_query_are_errors(client: TestClient, query: str, status: int, words: str):
    response = client.get(f"/v1/banks/news/nearest?{query}")
    assert response.status_code == status
    assert words in response.json()["detail"]
    assert response.json()["hint"]
    assert len(response.content) < 1_000


def test_other_routes_of_v1_take_no_query(client: TestClient):
    for url in ("/v1/banks?page=2", "/v1/banks/news?k=3"):
        body = client.get(url).json()
        assert (body["code"], body["hint"]) == ("usage", "this route takes no query parameters")
    assert client.get("/livez?probe=1").status_code == 200


def test_a_slash_at_the_end_is_ignored_and_an_encoded_one_is_no_separator(client: TestClient):
    assert client.get("/v1/banks/").json() == client.get("/v1/banks").json()
    assert client.get("/v1/banks/news/nearest/?token_id=300").status_code == 200
    for url in ("/v1/banks/news%2Fnearest?token_id=300", "/v1%2Fbanks", "/v1/banks//news", "/v1/banks/news%2F"):
        response = client.get(url, follow_redirects=False)
        assert response.status_code in (400, 404)
        assert response.headers["content-type"] == "application/problem+json"
