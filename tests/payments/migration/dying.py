"""A store at which the process ends, at a call that a test chooses."""

from typing import Any

from engine.payments import PaymentDB


class EndError(Exception):
    """Stands for the end of the process."""


class Dying:
    """A store that ends the process at its `when`th call of `name`, before or after it."""

    def __init__(self, store: PaymentDB, name: str, when: int, after: bool) -> None:
        self.store = store
        self.name = name
        self.left = when
        self.after = after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.store, name)
        return method if name != self.name else lambda *a, **k: self.call(method, *a, **k)

    def call(self, method: Any, *arguments: Any, **named: Any) -> Any:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise EndError
        answer = method(*arguments, **named)
        if self.left == 0:
            raise EndError
        return answer
