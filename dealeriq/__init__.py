"""Settings, the command line, the local runtime, the HTTP service and the client."""
