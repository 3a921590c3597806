from __future__ import annotations

import pytest

from engine.config import Settings, load_settings
from engine.errors import BadInputError


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"MASKWHEEL_{name.upper()}", raising=False)


def test_defaults_need_no_environment() -> None:
    assert load_settings().workspace == "maskwheel-data"


def test_an_option_wins_over_the_environment_which_wins_over_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MASKWHEEL_WORKSPACE", "/data/birds")
    monkeypatch.setenv("MASKWHEEL_MAX_IMAGE_PIXELS", "1000")
    assert load_settings().workspace == "/data/birds"
    settings = load_settings(workspace="/data/fish", max_image_pixels=None)
    assert settings.workspace == "/data/fish"
    assert settings.max_image_pixels == 1000


def test_a_value_that_does_not_fit_is_named_with_where_it_came_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MASKWHEEL_READ_THREADS", "many")
    with pytest.raises(BadInputError, match="MASKWHEEL_READ_THREADS: got 'many'"):
        load_settings()
    monkeypatch.delenv("MASKWHEEL_READ_THREADS")
    with pytest.raises(BadInputError, match="images_per_shard: got 0"):
        load_settings(images_per_shard=0)


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(BadInputError, match="colour"):
        load_settings(colour="blue")


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().read_threads = 3


def test_the_password_of_the_database_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKWHEEL_DATABASE_URL", "postgresql://me:secret@host/name")
    settings = load_settings()
    assert "secret" not in repr(settings)
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value().endswith("secret@host/name")
