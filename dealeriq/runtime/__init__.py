"""The local runtime: every service whose address is unset, started as a child process."""
