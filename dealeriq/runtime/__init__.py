"""The local runtime: every service whose address is unset, started as a child process."""

from dealeriq.runtime.child import Child, ServiceStatus
from dealeriq.runtime.supervisor import Supervisor

__all__ = ["Child", "ServiceStatus", "Supervisor"]
