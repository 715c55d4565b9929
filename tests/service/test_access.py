import pytest
from costbank_service import Settings, create_app, load_settings
from costbank_service.settings import check_exposure
from fastapi.testclient import TestClient

from costbank.errors import UsageError


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"}, {"Authorization": "s3cret"},
     {"Authorization": "Bearer s3cret "}, {"Authorization": b"Bearer s3cr\xe9t"}],
)  # fmt: skip
def test_with_a_key_v1_requires_it(store, headers: dict):
    with TestClient(create_app(Settings(store=store, api_key="s3cret"))) as client:
        response = client.get("/v1/banks", headers=headers)
        assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
        assert response.headers["www-authenticate"].startswith('Bearer realm="costbank"')
        sent_a_key = str(headers.get("Authorization", "")).lower().find("bearer ") >= 0
        assert ("invalid_token" in response.headers["www-authenticate"]) == sent_a_key
        assert "Authorization" in response.json()["detail"]
        assert sent_a_key or "`Authorization: Bearer <key>`" in response.json()["detail"]
        assert client.get("/livez").status_code == 200
        for url in ("/v1/banks", "/v1/banks/news", "/v1/banks/news/nearest?token_id=300"):
            assert client.get(url).status_code == 401
            assert client.get(url, headers={"Authorization": "Bearer s3cret"}).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_key(host: str):
    check_exposure(Settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org"])
def test_other_addresses_need_a_key_or_no_auth(host: str):
    with pytest.raises(UsageError, match="no key") as caught:
        check_exposure(Settings(host=host))
    assert "COSTBANK_API_KEY" in caught.value.hint
    check_exposure(Settings(host=host, api_key="s3cret"))
    check_exposure(Settings(host=host, no_auth=True))


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path):
    for name, value in {"STORE": str(tmp_path), "MAX_K": "7", "API_KEY": "k", "PORT": "99"}.items():
        monkeypatch.setenv(f"COSTBANK_{name}", value)
    settings = Settings()
    assert (settings.store, settings.max_k, settings.port) == (tmp_path, 7, 99)
    assert settings.api_key is not None
    assert "k" not in repr(settings.api_key)


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch):
    for name in ("API_KEY", "STORE", "PORT"):
        monkeypatch.setenv(f"COSTBANK_{name}", "")
    settings = load_settings()
    assert settings.api_key is None
    assert settings.port == 8137
    with pytest.raises(UsageError, match="no key"):
        check_exposure(load_settings(host="0.0.0.0"))


@pytest.mark.parametrize(("name", "value"), [("PORT", "none"), ("MAX_K", "0"), ("NO_AUTH", "perhaps")])
def test_a_variable_that_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    monkeypatch.setenv(f"COSTBANK_{name}", value)
    with pytest.raises(UsageError, match=rf"\$COSTBANK_{name} is '{value}', and it takes "):
        load_settings()


def test_an_empty_key_is_refused():
    with pytest.raises(UsageError, match="COSTBANK_API_KEY"):
        load_settings(api_key="")


@pytest.mark.parametrize("key", ["schlüssel", "café-1", "naïve key", "ключ", "鍵", "🔑", "ÿ"])
def test_a_key_that_is_not_ascii_works_in_utf_8_and_in_latin_1(store, key: str):
    with TestClient(create_app(Settings(store=store, api_key=key))) as client:
        readings = [key.encode()]
        if max(map(ord, key)) < 256:
            readings.append(key.encode("latin-1"))
        for reading in readings:
            assert client.get("/v1/banks", headers={"Authorization": b"Bearer " + reading}).status_code == 200
            assert client.get("/v1/banks", headers={"Authorization": b"bearer  " + reading}).status_code == 200
        for wrong in (key.encode("utf-16-le"), key.encode("ascii", "replace"), key.encode()[:-1], b""):
            response = client.get("/v1/banks", headers={"Authorization": b"Bearer " + wrong})
            assert response.status_code == 401


@pytest.mark.parametrize("key", ["two\nlines", "end\n", "\ttab", " front", "back ", "nul\0", "del\x7f", "cr\r"])
def test_a_key_that_no_header_can_carry_is_refused_at_the_start(key: str):
    with pytest.raises(UsageError, match=r"\$COSTBANK_API_KEY: a key with control characters") as caught:
        load_settings(api_key=key)
    assert key not in str(caught.value)


def test_a_key_sent_twice_is_refused(store):
    with TestClient(create_app(Settings(store=store, api_key="s3cret"))) as client:
        headers = [("Authorization", "Bearer s3cret"), ("Authorization", "Bearer s3cret")]
        assert client.get("/v1/banks", headers=headers).status_code == 401


def test_the_openapi_document_asks_for_a_key_only_where_one_is_set(store):
    with TestClient(create_app(Settings(store=store))) as client:
        document = client.get("/openapi.json").json()
        assert "securitySchemes" not in document["components"]
        assert not any("security" in one for operations in document["paths"].values() for one in operations.values())
    with TestClient(create_app(Settings(store=store, api_key="s3cret"))) as client:
        document = client.get("/openapi.json").json()
        scheme = document["components"]["securitySchemes"]["key"]
        assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
        for path, operations in document["paths"].items():
            behind_the_key = path.startswith("/v1/")
            for operation in operations.values():
                assert operation.get("security") == ([{"key": []}] if behind_the_key else None)
                assert ("401" in operation["responses"]) == behind_the_key
            assert client.get(path).status_code == (401 if behind_the_key else 200)
