"""Where weights come from: the hub, addresses, and the table of published weights."""
