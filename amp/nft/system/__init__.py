"""The operating system: files, processes, heartbeats and signals."""
