"""Dependencies of the routes: the application's state."""

from fastapi import Request

from costbank_service.bank_cache import BankCache
from costbank_service.search_pool import SearchPool
from costbank_service.settings import Settings

__all__ = ["banks_of", "searches_of", "settings_of"]


def banks_of(request: Request) -> BankCache:
    return request.app.state.banks


def searches_of(request: Request) -> SearchPool:
    return request.app.state.searches


def settings_of(request: Request) -> Settings:
    return request.app.state.settings
