"""Every `AUTO_REPLY_…` variable."""

from pathlib import Path
from typing import Self

from pydantic import Field, HttpUrl, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from consumers.auto_reply.graph import Login
from consumers.settings import ConsumerSettings

EVENT_AGE_MAX_S = 24 * 3600  # no event may be answered later than that (Meta), and the ledger is kept for three days


class Settings(ConsumerSettings):
    """What auto_reply is told from outside.

    Without a Graph URL and without tokens it decides and sends nothing, as in a dry run, and says so.
    """

    model_config = SettingsConfigDict(env_prefix="AUTO_REPLY_")

    group_id: str = Field(default="instagram-auto-reply", min_length=1)
    rules: Path
    graph_url: HttpUrl | None = None
    graph_login: Login = "instagram"
    tokens: SecretStr | None = None
    tokens_file: Path | None = None
    event_age_max_s: int = Field(default=3600, gt=0, le=EVENT_AGE_MAX_S)
    unknown_after_s: int = Field(default=300, gt=0, le=EVENT_AGE_MAX_S)
    account_rate_per_s: float = Field(default=100, gt=0, le=10_000)
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    dry_run: bool = False

    @property
    def sends(self) -> bool:
        """Whether anything is sent."""
        return not self.dry_run and self.graph_url is not None

    @model_validator(mode="after")
    def _can_send(self) -> Self:
        has_tokens = self.tokens is not None or self.tokens_file is not None
        if not self.dry_run and has_tokens != (self.graph_url is not None):
            missing = "AUTO_REPLY_GRAPH_URL" if has_tokens else "AUTO_REPLY_TOKENS_FILE (or AUTO_REPLY_TOKENS)"
            raise ValueError(f"{missing}: needed for sending; to decide without sending set AUTO_REPLY_DRY_RUN=true")
        return self
