"""How many programs has XLA compiled? After the first steps of a stage the number must stand still."""

import jax

_EVENT = "/jax/core/compile/backend_compile_duration"
_count = 0


def _listen(event: str, duration: float, **_: object) -> None:
    global _count
    _count += event == _EVENT


jax.monitoring.register_event_duration_secs_listener(_listen)


def compilations() -> int:
    """Programs compiled (or read from the persistent cache) in this process since this module was imported."""
    return _count
