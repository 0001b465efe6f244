"""One frozen tree of settings from `claasbot.toml` and the environment, validated once.

The environment wins: `CLAASBOT_SERVER__PORT=8101` is `[server] port = 8101`. Unknown names are
refused with the nearest known one. Every field carries its help, which `claasbot settings` and
`docs/settings.md` print.
"""

from __future__ import annotations

import difflib
import os
import shlex
import stat
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

import pydantic
from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from claasbot.domain.access import AccessMode, AccessRules
from claasbot.domain.completion import Sampling
from claasbot.domain.experience import LearningMode
from claasbot.domain.feedback import BAD_REACTIONS, GOOD_REACTIONS, Reactions
from claasbot.domain.gate import Limits
from claasbot.domain.job import ALL_LINEAR, Recipe
from claasbot.domain.quiet import quiet_hours
from claasbot.domain.retention import RetentionRules
from claasbot.domain.schedule import Rules
from claasbot.errors import SettingsError
from claasbot.logs import Format, Level, LogRules
from claasbot.masking import MASK, keep_secret
from claasbot.own_command import own_command
from claasbot.own_machine import is_this_machine

PREFIX = "CLAASBOT_"
_TOKEN_VARIABLES = {"telegram": "CLAASBOT_TELEGRAM_TOKEN", "discord": "CLAASBOT_DISCORD_TOKEN"}
"""Short names for one token, or several with commas between."""
_OTHER_VARIABLES = {"CLAASBOT_CONFIG", *_TOKEN_VARIABLES.values()}


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerSettings(_Section):
    url: str = Field(
        "", description="Attach to a running vLLM server instead of starting one, e.g. http://127.0.0.1:8000"
    )
    api_key: SecretStr = Field(SecretStr(""), description="API key of the attached server")
    allow_plain_http: bool = Field(
        False, description="Attach to a server beyond this machine without TLS: only on a network that is yours alone"
    )
    adapters_path: str = Field(
        "", description="Where an attached server sees our adapters folder; empty: the same path"
    )
    model: str = Field(
        "", description="Base model of the server; empty: SmolLM2-135M-Instruct (CPU), Qwen/Qwen3-8B (GPU)"
    )
    port: int = Field(8177, ge=1, le=65535, description="Loopback port of the server that claasbot starts")
    max_model_len: int = Field(4096, ge=512, description="Context window in tokens")
    max_loras: int = Field(6, ge=2, description="Adapter slots; at most one fewer answer at the same time")
    max_cpu_loras: int = Field(64, ge=2, description="Adapters that the server keeps in memory")
    kv_cache_gib: int = Field(1, ge=1, description="Memory for the KV cache of the CPU server, whole GiB")
    gpu_memory_share: float = Field(0.45, gt=0, le=0.95, description="Share of the GPU's memory for the server")
    threads: str = Field("0-1", description="CPU cores of the server: a range such as 0-1, `auto` or `nobind`")
    start_deadline_s: float = Field(300.0, gt=0, description="Longest start of the server before it counts as failed")

    @pydantic.model_validator(mode="after")
    def _speaks_tls_beyond_this_machine(self) -> ServerSettings:
        address = urlsplit(self.url)
        if address.scheme == "http" and not self.allow_plain_http and not is_this_machine(address.hostname or ""):
            raise ValueError(
                f"server.url {self.url!r} is beyond this machine, without TLS: what people write would cross the net "
                "for all to read; use https, or set server.allow_plain_http on a network that is yours alone"
            )
        return self


class TrainerSettings(_Section):
    threads: int = Field(1, ge=1, description="CPU threads of the trainer; on 2 cores more than one is slower")
    job_deadline_s: float = Field(300.0, gt=0, description="Longest job before the trainer is restarted")


class ChatSettings(_Section):
    system_prompt: str = Field("", description="System message of every conversation; empty: the chat template's own")
    temperature: float = Field(0.5, ge=0, le=2, description="Sampling temperature")
    top_p: float = Field(0.9, gt=0, le=1, description="Nucleus sampling: smallest set of tokens with this probability")
    max_tokens: int = Field(256, ge=1, description="Longest answer in tokens")
    max_message_chars: int = Field(8_000, ge=1, description="Longest message that is read; longer ones are refused")
    enable_thinking: bool = Field(False, description="Let reasoning models think before they answer")
    load_wait_s: float = Field(3.0, ge=0, description="How long an answer waits for the person's version to be loaded")
    group_idle_minutes: float = Field(
        10.0,
        ge=0,
        description="In a group, a message that replies to nothing begins a new conversation after this pause",
    )
    answers_per_day: int = Field(0, ge=0, description="Most answers to one person in 24 hours; 0: no limit")
    max_waiting_each: int = Field(
        20, ge=0, description="Most messages of one person that wait at once; more are turned away; 0: no limit"
    )
    max_waiting: int = Field(
        1_000, ge=1, description="Most messages of everybody that wait at once; more are turned away with a sentence"
    )
    has_buttons: bool = Field(True, description="Thumbs and a retry button under answers on chat platforms")
    good_reactions: tuple[str, ...] = Field(GOOD_REACTIONS, description="Reactions that say the answer was good")
    bad_reactions: tuple[str, ...] = Field(
        BAD_REACTIONS, description="Reactions that say it was not; others say nothing"
    )
    quiet_hours: str = Field("", description="Hours without notices, local time, e.g. 22-8; marks still change")
    privacy_file: str = Field("", description="Text file with your own words for /privacy; empty: ours")

    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, top_p=self.top_p, max_tokens=self.max_tokens)

    def reactions(self) -> Reactions:
        return Reactions(good=frozenset(self.good_reactions), bad=frozenset(self.bad_reactions))


class LearningSettings(_Section):
    is_on: bool = Field(True, description="Learn from feedback at all")
    debounce_s: float = Field(0.5, ge=0, description="Wait this long after the last feedback before a lesson")
    cooldown_s: float = Field(0.0, ge=0, description="Least time between two lessons of one person")
    max_experiences: int = Field(4, ge=1, description="Most experiences in one lesson")
    max_staleness: int = Field(20, ge=0, description="Most promoted versions since the answer was sampled")
    max_standing: int = Field(5, ge=0, description="Most earlier preferences that the teacher reads (base+digest)")
    lessons_per_day: int = Field(0, ge=0, description="Most lessons of one person in 24 hours; 0: no limit")
    n_earlier: int = Field(1, ge=0, description="Earlier lessons that the gate scores again")
    max_attempts: int = Field(3, ge=1, description="Attempts before a job is given up")


class RecipeSettings(_Section):
    alpha: float = Field(0.0, ge=0, le=1, description="Divergence: 0 forward KL, 1 reverse KL, between: Jensen-Shannon")
    teacher: Literal["base", "base+digest"] = Field(
        "base+digest", description="What the teacher reads: this feedback, or the standing preferences too"
    )
    contrast: float = Field(
        0.75, ge=0, le=4, description="How much further than the hindsight moves the base model the teacher goes"
    )
    n_steps: int = Field(4, ge=1, le=64, description="Most optimizer steps in one lesson")
    kl_stop_nats: float = Field(0.1, gt=0, description="No further step above this KL(now || start) per token")
    learning_rate: float = Field(3e-4, gt=0, lt=1, description="AdamW learning rate")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW beta 1")
    beta2: float = Field(0.999, ge=0, lt=1, description="AdamW beta 2")
    epsilon: float = Field(1e-8, gt=0, description="AdamW epsilon")
    weight_decay: float = Field(0.0, ge=0, description="AdamW weight decay")
    clip_norm: float = Field(1.0, gt=0, description="Largest gradient norm")
    ratio_cap: float = Field(2.0, gt=0, description="Cap of the importance ratio student / completion, per token")
    correction_weight: float = Field(0.1, ge=0, description="Weight of the cross-entropy on a corrected answer")
    rank: int = Field(16, ge=1, le=256, description="LoRA rank")
    lora_alpha: int = Field(32, ge=1, description="LoRA alpha")
    target_modules: tuple[str, ...] = Field(ALL_LINEAR, description="Linear layers that get a LoRA")
    max_tokens: int = Field(2048, ge=16, description="Longest prompt + completion that is trained")

    def recipe(self) -> Recipe:
        return Recipe(**self.model_dump())


class GateSettings(_Section):
    max_mismatch_nats: float = Field(
        0.25, gt=0, description="Server against trainer at unchanged weights, mean per token"
    )
    max_kl_new_old_nats: float = Field(1.0, gt=0, description="KL(new || parent) per token of the lesson")
    max_kl_base_nats: float = Field(1.5, gt=0, description="KL(base || new) per token on the fixed probes")
    max_served_gap_nats: float = Field(0.12, gt=0, description="Canary: served against trainer, mean per token")
    max_earlier_rise_nats: float = Field(0.5, gt=0, description="How far an earlier lesson may be pushed away")
    min_delta_norm: float = Field(1e-6, ge=0, description="Least change of the weights that counts as one")
    max_repeated_share: float = Field(0.8, gt=0, le=1, description="Repeated 3-grams in a sample that count as a loop")
    min_explanation_words: int = Field(
        3, ge=0, description="Fewest words in answer to a question that asks how; 0: one-word versions may pass"
    )

    def limits(self) -> Limits:
        return Limits(**self.model_dump())


class WebSettings(_Section):
    host: str = Field("127.0.0.1", description="Address of the dashboard and playground")
    port: int = Field(8176, ge=0, le=65535, description="Port of the dashboard and playground; 0: any free one")
    session_hours: float = Field(12, gt=0, le=24 * 14, description="How long a sign-in lasts at most")
    session_idle_minutes: float = Field(
        30, gt=0, le=24 * 60, description="How long it lasts while no page of the dashboard is looked at"
    )
    trusted_proxies: tuple[IPvAnyNetwork, ...] = Field(
        (), description="Addresses or networks of proxies in front, whose X-Forwarded-Proto and -For are believed"
    )
    writes_per_minute: int = Field(
        120, ge=1, description="Most changes that one session or API key may ask for in a minute"
    )
    host_names: tuple[str, ...] = Field(
        (), description="Names, besides localhost and IPs, under which browsers reach it"
    )
    certificate: str = Field("", description="PEM file with the certificate chain: the dashboard then speaks https")
    certificate_key: str = Field("", description="PEM file with its private key")
    allow_plain_http: bool = Field(
        False, description="Listen beyond this machine without TLS: only where a proxy in front speaks https"
    )


class AccessSettings(_Section):
    mode: AccessMode = Field(
        "pairing", description="Who may chat: `pairing` (strangers get a code for you), `listed` or `open` (everybody)"
    )
    admins: tuple[str, ...] = Field((), description="Admin accounts, e.g. telegram:123; /whoami tells them")
    accounts: tuple[str, ...] = Field((), description="Accounts that may chat, e.g. discord:456")
    blocked: tuple[str, ...] = Field((), description="Accounts that are never answered")
    chats: tuple[str, ...] = Field((), description="Groups and channels in which everybody may chat")
    roles: tuple[str, ...] = Field((), description="Roles whose people may chat, e.g. discord:789")

    def rules(self, at_home: frozenset[str]) -> AccessRules:
        return AccessRules(
            mode=self.mode,
            admins=frozenset(self.admins),
            accounts=frozenset(self.accounts),
            blocked=frozenset(self.blocked),
            chats=frozenset(self.chats),
            roles=frozenset(self.roles),
            at_home=at_home,
        )


class RetentionSettings(_Section):
    messages_days: int = Field(
        0, ge=0, description="Days after which messages, answers and prompts are deleted; 0: kept until /forget"
    )
    lessons_days: int = Field(
        0, ge=0, description="Days for which what taught a lesson stays, so that another can be taken back; 0: always"
    )
    inbox_days: int = Field(30, ge=1, description="Days for which a handled update is known, so that none counts twice")
    log_days: int = Field(0, ge=0, description="Days for which logs stay; 0: only their size is bounded")
    versions: int = Field(
        0, ge=0, description="Earlier versions of one person whose files stay for /undo; 0: all of them"
    )

    def rules(self) -> RetentionRules:
        return RetentionRules(**self.model_dump())


class LogSettings(_Section):
    format: Format = Field("text", description="How the bot's log is written: `text`, or `json` with one object a line")
    level: Level = Field("info", description="What is written: `debug`, `info`, `warning` or `error`")
    max_mib: int = Field(8, ge=1, le=1024, description="Size at which the log is rotated, MiB")
    files: int = Field(1, ge=1, le=100, description="Rotated logs that are kept")

    def rules(self) -> LogRules:
        return LogRules(level=self.level, format=self.format, max_bytes=self.max_mib * 2**20, n_files=self.files)


class StoreSettings(_Section):
    key_file: str = Field(
        "", description="File with the key of an encrypted database (`claasbot store`); empty: it is not encrypted"
    )
    key: SecretStr = Field(SecretStr(""), description="The key itself, 64 hex digits, for CLAASBOT_STORE__KEY")


class BackupSettings(_Section):
    folder: Path = Field(Path("backups"), description="Where backups are kept; a relative path is in the data folder")
    every_minutes: float = Field(
        1440.0, ge=0, description="A backup by itself this often while the bot runs; 0: none. 1 loses a minute at most"
    )
    keep: int = Field(7, ge=1, description="How many backups are kept; older ones are deleted")
    days: int = Field(30, ge=1, le=30, description="How long a backup is kept: it holds people's words")


class TelegramSettings(_Section):
    tokens: tuple[SecretStr, ...] = Field((), description="Bot tokens, one per account; or CLAASBOT_TELEGRAM_TOKEN")
    base_url: str = Field("https://api.telegram.org/bot", description="Bot API; your own server here")
    base_file_url: str = Field("https://api.telegram.org/file/bot", description="Where the Bot API keeps files")
    webhook_url: str = Field(
        "", description="Public https address that reaches /webhooks of the dashboard's port; empty: polling"
    )
    learning: LearningMode = Field(
        "full",
        description="What may train: `off`, `signals_only`, `interactions` (text typed behind the bot's own commands, "
        "such as /ask) or `full` (every message to the bot)",
    )


class DiscordSettings(_Section):
    tokens: tuple[SecretStr, ...] = Field((), description="Bot tokens, one per account; or CLAASBOT_DISCORD_TOKEN")
    api_base: str = Field("", description="REST API; empty: Discord's own")
    gateway: str = Field("", description="Gateway; empty: Discord's own")
    message_content: bool = Field(
        True, description="Ask for the message-content intent; without it only /ask, mentions and private messages work"
    )
    learning: LearningMode = Field(
        "off",
        description="What may train. Discord's developer policy (item 21) forbids training on message content without "
        "Discord's permission: `off`, `signals_only`, `interactions` (text typed into the bot's own commands and "
        "forms) or `full` (you have that permission, or evaluate privately)",
    )


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        nested_model_default_partial_update=True,
    )

    data: Path = Field(
        Path("data/var"), description="Everything that claasbot writes: database, adapters, models, logs"
    )
    accelerator: Literal["auto", "cpu", "gpu"] = Field("auto", description="Where to serve and train")
    server: ServerSettings = ServerSettings()
    trainer: TrainerSettings = TrainerSettings()
    chat: ChatSettings = ChatSettings()
    learning: LearningSettings = LearningSettings()
    recipe: RecipeSettings = RecipeSettings()
    gate: GateSettings = GateSettings()
    web: WebSettings = WebSettings()
    access: AccessSettings = AccessSettings()
    store: StoreSettings = StoreSettings()
    backup: BackupSettings = BackupSettings()
    log: LogSettings = LogSettings()
    retention: RetentionSettings = RetentionSettings()
    telegram: TelegramSettings = TelegramSettings()
    discord: DiscordSettings = DiscordSettings()

    @pydantic.model_validator(mode="after")
    def _fits_the_window(self) -> Settings:
        if self.chat.max_tokens >= self.server.max_model_len:
            raise ValueError(
                f"chat.max_tokens ({self.chat.max_tokens}) leaves no room for a question in server.max_model_len "
                f"({self.server.max_model_len})"
            )
        quiet_hours(self.chat.quiet_hours)
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls))

    def rules(self) -> Rules:
        return Rules(
            debounce_s=self.learning.debounce_s,
            cooldown_s=self.learning.cooldown_s,
            lessons_per_day=self.learning.lessons_per_day,
        )


def load(config: Path | None = None) -> Settings:
    """Read and validate everything. Raises SettingsError naming the setting, its value and what is expected."""
    chosen = config or Path(os.environ.get("CLAASBOT_CONFIG", "claasbot.toml"))
    if config is not None and not config.is_file():
        raise SettingsError(f"there is no settings file {str(config)!r}; leave --config out to use the defaults")
    _refuse_unknown_variables(os.environ)

    class FromThisFile(Settings):
        model_config = SettingsConfigDict(**{**Settings.model_config, "toml_file": chosen})

    _refuse_readable_secrets(chosen)
    try:
        settings = FromThisFile(**_tokens(os.environ))
    except pydantic.ValidationError as error:
        raise SettingsError(_explain(error, chosen)) from error
    except ValueError as error:
        raise SettingsError(f"{chosen} is not valid TOML: {error}") from error
    for name in _SECRETS:
        for secret in _each_secret(_at(settings, name)):
            keep_secret(secret)
    return settings


def _refuse_readable_secrets(config: Path) -> None:
    """Raises SettingsError for a file that holds a secret and that others than its owner may read."""
    try:
        written = tomllib.loads(config.read_text(encoding="utf-8"))
        mode = config.stat().st_mode
    except (OSError, ValueError):  # not there, or said in better words by who reads it whole
        return
    if not mode & (stat.S_IRWXG | stat.S_IRWXO):
        return
    for name in _SECRETS:
        section, _, field = name.rpartition(".")
        if isinstance(written.get(section), dict) and written[section].get(field):
            command = f"chmod 600 {shlex.quote(str(config))}"
            raise SettingsError(f"{config} holds {name}, and others than its owner may read it; run `{command}`")


def _tokens(environment: Mapping[str, str]) -> dict[str, Any]:
    """`{"telegram": {"tokens": [...]}}` of the variables that are set."""
    given = {platform: environment.get(name, "").split(",") for platform, name in _TOKEN_VARIABLES.items()}
    found = {platform: [token.strip() for token in tokens if token.strip()] for platform, tokens in given.items()}
    return {platform: {"tokens": tokens} for platform, tokens in found.items() if tokens}


def every_field(section: type[BaseModel] = Settings, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any, str]]:
    """(`server.port`, default, help) of every setting, in order."""
    for name, info in section.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from every_field(info.annotation, (*path, name))
        else:
            default = "" if isinstance(info.default, SecretStr) else info.default
            yield ".".join((*path, name)), default, info.description or ""


def _each_secret(value: object) -> list[str]:
    secrets = value if isinstance(value, tuple) else (value,)
    return [secret.get_secret_value() for secret in secrets if isinstance(secret, SecretStr)]


def _secret_names(section: type[BaseModel] = Settings, path: tuple[str, ...] = ()) -> Iterator[str]:
    for name, info in section.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from _secret_names(info.annotation, (*path, name))
        elif SecretStr in (info.annotation, *get_args(info.annotation)):
            yield ".".join((*path, name))


_SECRETS = tuple(_secret_names())
"""Settings whose values are never shown."""


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    known = {PREFIX + name.replace(".", "__").upper() for name, _, _ in every_field()} | _OTHER_VARIABLES
    for name in environment:
        if name.startswith(PREFIX) and name.upper() not in known:
            raise SettingsError(
                f"unknown environment variable {name!r}{_nearest(name, known)}; see `{own_command('settings')}`"
            )


def _explain(error: pydantic.ValidationError, config: Path) -> str:
    known = {name for name, _, _ in every_field()}
    lines = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"unknown setting {name!r}{_nearest(name, known)}")
        elif not name:
            lines.append(problem["msg"])
        else:
            shown = MASK if _has_secrets(name) else repr(problem["input"])
            lines.append(f"setting {name!r} is {shown}: {problem['msg'].lower()}")
    sources = dict.fromkeys(_source_of(problem["loc"], config) for problem in error.errors())
    return f"{'; '.join(lines)} (in {', '.join(sources)}; see `{own_command('settings')}`)"


def _has_secrets(name: str) -> bool:
    """A secret setting, one of its values, or the section around it."""
    return any(f"{name}.".startswith(f"{secret}.") or secret.startswith(f"{name}.") for secret in _SECRETS)


def _source_of(path: tuple[int | str, ...], config: Path) -> str:
    """Where a value was given. What concerns no single setting may be in both places."""
    if not path:
        return f"{config} or the environment"
    parts = [str(part) for part in path]
    # `chat.good_reactions.3` was given as `chat.good_reactions`
    names = [PREFIX + "__".join(parts[:n]).upper() for n in range(len(parts), 0, -1)]
    if parts[1:2] == ["tokens"]:
        names.append(_TOKEN_VARIABLES[parts[0]])
    found = next((name for name in os.environ if name.upper() in names), None)
    return str(config) if found is None else f"the variable {found}"


def _nearest(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def value_of(settings: Settings, name: str) -> object:
    """The value of `server.port`; secrets are masked."""
    value = _at(settings, name)
    if name not in _SECRETS:
        return value
    shown = tuple(MASK for secret in _each_secret(value) if secret)
    return shown if isinstance(value, tuple) else "".join(shown)


def shown_values(settings: Settings) -> dict[str, str]:
    """Every setting by its name; secrets are masked."""
    return {name: repr(value_of(settings, name)) for name, _, _ in every_field()}


def _at(settings: Settings, name: str) -> object:
    value: object = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value


def as_markdown() -> str:
    """The table of docs/settings.md."""
    rows = ["| setting | default | what it is |", "| --- | --- | --- |"]
    for name, default, text in every_field():
        shown = ", ".join(default) if isinstance(default, tuple) else str(default)
        rows.append(f"| `{name}` | {f'`{shown}`' if shown else 'empty'} | {text.replace('|', chr(92) + '|')} |")
    return "\n".join(rows)
