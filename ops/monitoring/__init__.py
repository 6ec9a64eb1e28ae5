"""What Cloud Monitoring, Grafana and Prometheus are told to watch: JSON and YAML files, and what installs them."""
