"""Hours of the network side in seconds: everything but PostgreSQL runs on virtual time."""
