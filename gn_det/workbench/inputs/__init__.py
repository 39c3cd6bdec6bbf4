"""What a run is given, looked at before it starts: config, data and checkpoint."""
