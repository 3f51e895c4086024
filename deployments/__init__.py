"""Everything that starts a flow: command line, server, schedules, demo."""
