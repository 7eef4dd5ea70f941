"""What operators see: logs, metrics, health, the debug address, the audit log."""
