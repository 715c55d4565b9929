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
def test_with_a_key_v1_asks_for_it(store, headers: dict):
    with TestClient(create_app(Settings(store=store, api_key="s3cret"))) as client:
        response = client.get("/v1/banks", headers=headers)
        assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
        assert response.headers["www-authenticate"] == "Bearer"
        assert client.get("/livez").status_code == 200
        for url in ("/v1/banks", "/v1/banks/news", "/v1/banks/news/nearest?token_id=300"):
            assert client.get(url).status_code == 401
            assert client.get(url, headers={"Authorization": "Bearer s3cret"}).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_key(host: str):
    check_exposure(Settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org"])
def test_other_addresses_need_a_key_or_a_word(host: str):
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
    with pytest.raises(UsageError, match=rf"\$COSTBANK_{name}: "):
        load_settings()


def test_a_key_is_never_empty():
    with pytest.raises(UsageError, match="COSTBANK_API_KEY"):
        load_settings(api_key="")
