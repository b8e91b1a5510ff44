"""Makes the tables and brings them up to date, by the migrations that lie beside this file."""

from pathlib import Path
from typing import Any, Final

from engine.payments.errors import StoreError, StoreNotFoundError, StoreTooNewError
from engine.payments.sql.database import VERSION_TABLE, Database

VERSIONS: Final = ("0001",)
"""Every version there was, oldest first; what is not among them is newer than this program."""

NEWEST: Final = VERSIONS[-1]
MIGRATIONS: Final = Path(__file__).parent / "migrations"


def bring_up_to_date(database: Database, *, create: bool) -> None:
    """See to it that the tables are those of this program.

    Raises:
        StoreNotFoundError: there are none, and none were to be made.
        StoreTooNewError: a newer program made them.
        StoreError: they are older, and the store was opened to be read only.
    """
    version = database.read(database.version)
    check_version(database, version, create=create)
    if not database.is_read_only:
        database.prepare()
    if version != NEWEST:
        # Another process may be faster: then Alembic, under the lock, finds nothing to do.
        with database.migrating() as connection:
            migrate(connection)


def check_version(database: Database, version: str | None, *, create: bool) -> None:
    """Allow tables of this program, older ones that may be changed, or none where some may be made.

    Raises:
        StoreError: as `bring_up_to_date`.
    """
    if version is None and not create:
        raise StoreNotFoundError(f"{database.name} has no payments tables; check the name")
    if version is not None and version not in VERSIONS:
        raise StoreTooNewError(
            f"{database.name} has tables of version {version}, this program knows up to {NEWEST}: "
            "use the newer program"
        )
    if version not in (None, NEWEST) and database.is_read_only:
        raise StoreError(
            f"{database.name} has tables of version {version}: open it for writing once, so that "
            f"they become those of version {NEWEST}"
        )


def migrate(connection: Any, to: str = NEWEST) -> None:
    """Run what is missing of the migrations, in the transaction of `connection`.

    Alembic is loaded here: a store whose tables are current is opened without it.
    """
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    script = ScriptDirectory.from_config(config)

    def missing(revision: Any, _: Any) -> Any:
        return script._upgrade_revs(to, revision)

    with EnvironmentContext(config, script, fn=missing) as environment:
        environment.configure(
            connection=connection, version_table=VERSION_TABLE, transactional_ddl=False
        )
        environment.run_migrations()
