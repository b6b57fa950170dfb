"""Asyncio half: whether a thing is of SQLAlchemy's asyncio side; not imported, for it needs greenlet."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeGuard

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession


def _is(thing: object, name: str) -> bool:
    module = sys.modules.get("sqlalchemy.ext.asyncio")
    return module is not None and isinstance(thing, getattr(module, name))


def is_async_engine(thing: object) -> TypeGuard[AsyncEngine]:
    return _is(thing, "AsyncEngine")


def is_async_session(thing: object) -> TypeGuard[AsyncSession]:
    return _is(thing, "AsyncSession")


def is_async_connection(thing: object) -> TypeGuard[AsyncConnection]:
    return _is(thing, "AsyncConnection")


def is_async_registry(thing: object) -> bool:
    """Whether it is an async_scoped_session."""
    return _is(thing, "async_scoped_session")
