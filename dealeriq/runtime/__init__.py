"""The local runtime: every service whose address is unset, started as a child process."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dealeriq.runtime.child import Child, ServiceStatus
    from dealeriq.runtime.supervisor import Supervisor

__all__ = ["Child", "ServiceStatus", "Supervisor"]


def __getattr__(name: str) -> Any:
    # On demand, because the set-up runs `dealeriq.runtime.jars` before any package is installed.
    if name == "Supervisor":
        from dealeriq.runtime.supervisor import Supervisor

        return Supervisor
    if name in __all__:
        from dealeriq.runtime import child

        return getattr(child, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
