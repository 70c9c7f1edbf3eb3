"""Every `ANALYTICS_…` variable."""

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from consumers.settings import ConsumerSettings


class Settings(ConsumerSettings):
    """Those of every consumer, and where the database is, who may see the page, and what counts as unanswered."""

    model_config = SettingsConfigDict(env_prefix="ANALYTICS_")

    group_id: str = Field(default="instagram-analytics", min_length=1)
    database: Path = Path("analytics.duckdb")
    snapshot: Path | None = None
    host: str = "127.0.0.1"
    port: int = Field(default=8082, ge=1, le=65535)
    token: SecretStr | None = None
    token_file: Path | None = None
    unanswered_minutes: int = Field(default=60, ge=1)

    @property
    def snapshot_path(self) -> Path:
        """Where the snapshot is: beside the database, unless it was said."""
        return self.snapshot or self.database.with_name(f"{self.database.stem}.snapshot{self.database.suffix}")

    @model_validator(mode="after")
    def _read_token_file(self) -> Self:
        if self.token_file is not None:
            try:
                token = self.token_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                name = self.variable("token_file")
                raise ValueError(f"{name}: the file cannot be read ({type(error).__name__})") from None
            self.token = SecretStr(token)
        return self

    @model_validator(mode="after")
    def _check_paths(self) -> Self:
        if self.snapshot_path.absolute() == self.database.absolute():
            raise ValueError(f"{self.variable('snapshot')}: it is the database itself; name another file")
        return self
