"""Configuration: read once, from a file, then the environment, then flags; the later wins.

A key nobody knows refuses to start. Every value remembers where it came from.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from engine.channels.options import LaneOptions, PlacementOptions, ShardOptions
from engine.gateway.options import GatewayOptions
from engine.gateway.payments.options import PaymentsOptions
from engine.monitor.secrets import without_password
from engine.validation.options import RiskOptions, ValidationOptions
from engine.verify.options import VerifyOptions

ENV_PREFIX: Final = "PAYCHAN_"
NOT_CONFIG: Final = frozenset({"PAYCHAN_SERVER", "PAYCHAN_PAYMENTS_DB"})
"""What single commands read."""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of an engine; one struct per part.

    Attributes:
        datadir: Folder that holds everything the engine keeps.
    """

    datadir: str = "paychan-data"
    gateway: GatewayOptions = GatewayOptions()
    placement: PlacementOptions = PlacementOptions()
    lane: LaneOptions = LaneOptions()
    shard: ShardOptions = ShardOptions()
    validation: ValidationOptions = ValidationOptions()
    risk: RiskOptions = RiskOptions()
    verify: VerifyOptions = VerifyOptions()
    payments: PaymentsOptions = PaymentsOptions()


class ConfigError(Exception):
    """A setting that cannot be used; the message names the key, the value and where it stands."""


def load_config(
    path: Path | None, env: Mapping[str, str], flags: Mapping[str, str]
) -> tuple[Config, dict[str, str]]:
    """Return the configuration, and for each key (`part.name`) where its value came from.

    Args:
        path: A TOML file; None for none.
        env: `PAYCHAN_DATADIR`, `PAYCHAN_<PART>__<NAME>`; others that begin so are refused.
        flags: Key (`part.name`) to value, from the command line.

    Raises:
        ConfigError: an unknown key, or a value that does not fit.
    """
    settings: dict[str, tuple[Any, str]] = {}
    for key, value in _flatten(_read(path) if path is not None else {}).items():
        settings[key] = (value, f"file {path}")
    for name, value in env.items():
        if name.startswith(ENV_PREFIX) and name not in NOT_CONFIG:
            key = name.removeprefix(ENV_PREFIX).lower().replace("__", ".")
            settings[key] = (value, f"environment {name}")
    for key, value in flags.items():
        settings[key] = (value, "command line")
    defaults = dict.fromkeys(_flatten(msgspec.to_builtins(Config())), "default")
    for key, (value, origin) in settings.items():
        if key not in defaults:
            raise ConfigError(f"{origin}: no setting {key!r} (value {value!r}); see `config show`")
    origins = defaults | {key: origin for key, (_, origin) in settings.items()}
    return _convert(settings), origins


def flatten(config: Config) -> dict[str, Any]:
    """Return every key (`part.name`) with its value."""
    return _flatten(msgspec.to_builtins(config))


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _flatten(nested: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": deep for inner, deep in value.items()}
        else:
            flat[key] = value
    return flat


def _convert(settings: Mapping[str, tuple[Any, str]]) -> Config:
    nested: dict[str, Any] = {}
    for key, (value, _) in settings.items():
        part, _, name = key.rpartition(".")
        (nested.setdefault(part, {}) if part else nested)[name] = value
    try:
        config = msgspec.convert(nested, Config, strict=False)
    except msgspec.ValidationError as error:
        stood = {key: f"{value!r} from {origin}" for key, (value, origin) in settings.items()}
        raise ConfigError(without_password(f"{error}; given: {stood}")) from error
    _check_together(config)
    return config


def _check_together(config: Config) -> None:
    """Refuse values that are each within their limits and wrong together."""
    if config.verify.is_newest and config.risk.is_on:
        raise ConfigError(
            "verify.verification is newest, but a rule of `risk` is on: it may refuse the very "
            "claim that covers the others, so a shard would have to check them all; choose `every`"
        )
    at_once = config.lane.commits_max * config.lane.batch_claims_max
    if config.validation.retry_claims_max < at_once:
        raise ConfigError(
            f"validation.retry_claims_max is {config.validation.retry_claims_max}, but "
            f"lane.commits_max x lane.batch_claims_max is {at_once}: after a crash that many "
            "claims of one channel may be sent again, and each must be known; raise the former"
        )
