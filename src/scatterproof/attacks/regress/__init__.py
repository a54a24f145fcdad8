"""The layer fitted to what its neighbours see of requests, without any block."""
