"""The tables, as numbered migrations: one module each, applied in the order of this page.

A migration that was released is never edited. Ids are AUTOINCREMENT and never reused; times are UTC in ISO 8601; JSON
columns say so.
"""

from __future__ import annotations

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from claasbot.storage.schema import (
    m001_spine,
    m002_chat_platforms,
    m003_admins,
    m004_rebuilds,
    m005_retention,
    m007_bisection,
    m009_audit_chain,
    m010_errors,
)

migrations = Migrations("claasbot")


def _register(name: str, script: str) -> None:
    @migrations(name=name)
    def apply(db: Database) -> None:
        for statement in script.split(";\n"):
            if statement.strip():
                db.execute(statement)


for _module in (
    m001_spine,
    m002_chat_platforms,
    m003_admins,
    m004_rebuilds,
    m005_retention,
    m007_bisection,
    m009_audit_chain,
    m010_errors,
):
    _register(_module.__name__.rpartition(".")[2], _module.STATEMENTS)
