"""The picture of the Grafana dashboard in the documentation, and the command that takes it anew."""
