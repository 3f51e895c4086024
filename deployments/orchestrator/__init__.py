"""The Prefect server, the deployments on it, and what it does by itself."""
