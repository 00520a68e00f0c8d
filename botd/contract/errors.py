"""One exception type for everything that is told to somebody: what, why and what to do next."""

from __future__ import annotations

from botd.contract.vocabulary import KINDS, Exit, RpcCode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from botd.contract.vocabulary import Kind


class BotdError(Exception):
    """A refusal or failure with everything its reader needs.

    `kind` is one word of the closed list, `message` says what and why, `hint` the next thing to try,
    `exit` the status that botctl ends with, `code` the JSON-RPC code, `retry_after_s` (seconds) when
    waiting helps, `details` further facts (JSON values, no secrets).
    """

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        hint: str = "",
        exit: int | None = None,
        code: int | None = None,
        retry_after_s: float | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        default_code, default_exit = KINDS[kind]
        self.kind: Kind = kind
        self.message = message
        self.hint = hint
        self.exit = default_exit if exit is None else exit
        self.code = default_code if code is None else code
        self.retry_after_s = retry_after_s
        self.details = details or {}

    def to_rpc(self) -> dict[str, Any]:
        """The `error` member of a JSON-RPC response."""
        data: dict[str, Any] = {"kind": self.kind, "hint": self.hint, "exit": self.exit}
        if self.retry_after_s is not None:
            data["retry_after_s"] = round(self.retry_after_s, 3)
        if self.details:
            data["details"] = self.details
        return {"code": self.code, "message": self.message, "data": data}

    @classmethod
    def from_rpc(cls, error: dict[str, Any]) -> BotdError:
        """The exception that a JSON-RPC `error` member stands for; tolerant of foreign servers."""
        data = error.get("data")
        if not isinstance(data, dict):
            data = {}
        kind, wait = data.get("kind"), data.get("retry_after_s")
        return cls(
            kind if isinstance(kind, str) and kind in KINDS else "internal",
            str(error.get("message", "an error without a message")),
            hint=str(data.get("hint", "")),
            exit=data.get("exit") if _is_int(data.get("exit")) else Exit.FAILED,
            code=error.get("code") if _is_int(error.get("code")) else None,
            retry_after_s=wait if isinstance(wait, float) or _is_int(wait) else None,
            details=data.get("details") if isinstance(data.get("details"), dict) else None,
        )


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def invalid(path: str, reason: str, *, hint: str = "", exit: int = Exit.USAGE) -> BotdError:
    """A value that cannot be accepted. `path` says where it stands, as in `bot[2].memory_mb`."""
    message = f"{path}: {reason}" if path else reason
    return BotdError("invalid", message, hint=hint, exit=exit, code=RpcCode.INVALID_PARAMS, details={"path": path})


def not_found(what: str, *, hint: str = "") -> BotdError:
    return BotdError("not_found", what, hint=hint)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` was probably meant to be, or None."""
    from difflib import get_close_matches  # only ever needed on the way to an error

    found = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return found[0] if found else None
