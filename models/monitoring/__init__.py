"""Is a served model still right: drift of what it reads and says, its error before and after outcomes come."""
